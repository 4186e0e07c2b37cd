//! The stem on one image: padding, convolution with BN folded in, ReLU and max pool.
//!
//! The image is stored with its padding, channels innermost. The pixels under a row of the kernel
//! are then adjacent in memory, so the convolution is a product with one tap for each row of the
//! kernel, and no patches are gathered.

use super::memory::Shared;
use super::product::{Contraction, Out, Right, Start, count, multiply};
use super::share;
use crate::kernel::product::Rows;
use crate::kernel::simd::{Kernel, Simd};
use densenet_plan::{Pixels, Stem, StemKind};

/// The largest kernel's side.
const KERNEL: usize = 7;

/// The width of the padded image, and how many numbers the image has.
pub(super) fn padded_image(stem: &Stem) -> (usize, usize) {
    let width = stem.width + 2 * stem.padding();
    let height = stem.height + 2 * stem.padding();
    (width, width * height * stem.channels)
}

/// Numbers that a thread needs for rows of the convolution's maps.
pub(super) fn scratch(stem: &Stem, maps: usize) -> usize {
    match stem.kind {
        StemKind::ImageNet => 3 * stem.convolved_size().1 * maps,
        StemKind::Cifar => 0,
    }
}

/// Copies an image into its padded form.
pub(super) struct Pad<'a> {
    pub stem: &'a Stem,
    pub pixels: Pixels<'a>,
    /// The index of the image in `pixels`.
    pub image: usize,
    pub into: Shared<'a>,
    /// The index of the thread that runs this, and the number of threads that share the work.
    pub thread: usize,
    pub threads: usize,
}

impl Pad<'_> {
    pub fn run(self) {
        let Stem {
            channels,
            height,
            width,
            ..
        } = *self.stem;
        let padding = self.stem.padding();
        let line = padded_image(self.stem).0 * channels;
        let rows = share(height + 2 * padding, self.thread, self.threads);
        let part = self.into.part(rows.start * line..rows.end * line);
        // SAFETY: each thread writes rows of its own.
        let lines = unsafe { part.write() };
        for (row, line) in rows.zip(lines.chunks_exact_mut(line)) {
            line.fill(0.0);
            let y = row.wrapping_sub(padding);
            if y >= height {
                continue;
            }
            let into = &mut line[padding * channels..][..width * channels];
            match self.pixels {
                Pixels::Nchw(values) => {
                    for c in 0..channels {
                        let from = ((self.image * channels + c) * height + y) * width;
                        let from = &values[from..][..width];
                        for (into, value) in into[c..].iter_mut().step_by(channels).zip(from) {
                            *into = *value;
                        }
                    }
                }
                Pixels::Nhwc { bytes, mean, std } => {
                    let from = (self.image * height + y) * width * channels;
                    let from = bytes[from..][..width * channels].chunks_exact(channels);
                    for (into, bytes) in into.chunks_exact_mut(channels).zip(from) {
                        for (c, (into, &byte)) in into.iter_mut().zip(bytes).enumerate() {
                            *into = (f32::from(byte) / 255.0 - mean[c]) / std[c];
                        }
                    }
                }
                Pixels::NhwcFloats { values, mean, std } => {
                    let from = (self.image * height + y) * width * channels;
                    let from = values[from..][..width * channels].chunks_exact(channels);
                    for (into, values) in into.chunks_exact_mut(channels).zip(from) {
                        for (c, (into, value)) in into.iter_mut().zip(values).enumerate() {
                            *into = (value - mean[c]) / std[c];
                        }
                    }
                }
            }
        }
    }
}

/// The convolution of a padded image, and the max pool if the stem has one.
pub(super) struct Convolve<'a> {
    pub stem: &'a Stem,
    pub image: &'a [f32],
    pub weight: Right<'a>,
    /// The bias of each map, padded to whole vectors.
    pub bias: &'a [f32],
    pub out: Out<'a>,
    /// The index of the thread that runs this, and the number of threads that share the work.
    pub thread: usize,
    pub threads: usize,
    pub scratch: Shared<'a>,
}

impl Kernel for Convolve<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.stem.kind {
            StemKind::Cifar => {
                let (height, width) = self.stem.convolved_size();
                for row in share(height, self.thread, self.threads) {
                    let out = Out {
                        at: self.out.at + row * width * self.out.stride,
                        ..self.out
                    };
                    self.row(simd, row, out);
                }
            }
            StemKind::ImageNet => self.pooled(simd),
        }
    }
}

impl Convolve<'_> {
    /// One row of the convolution's maps.
    #[inline(always)]
    fn row<S: Simd>(&self, simd: S, row: usize, out: Out<'_>) {
        let stem = self.stem;
        let (kernel, channels) = (stem.kernel(), stem.channels);
        let line = padded_image(stem).0 * channels;
        let taps: [usize; KERNEL] = std::array::from_fn(|tap| tap * line);
        let rows = Rows {
            values: &self.image[row * stem.stride() * line..],
            stride: stem.stride() * channels,
            count: stem.convolved_size().1,
        };
        let depth = Contraction {
            taps: &taps[..kernel],
            channels: kernel * channels,
            first: 0,
        };
        let panels = 0..count(self.weight.panels, S::LANES);
        let start = Start::Bias(self.bias);
        // SAFETY: each thread writes rows of its own.
        unsafe { multiply(simd, rows, depth, self.weight, panels, out, start) };
    }

    /// Convolution, ReLU and 3x3 max pool with stride 2 and padding 1, three rows at a time.
    #[inline(always)]
    fn pooled<S: Simd>(&self, simd: S) {
        let (height, width) = self.stem.convolved_size();
        let (pooled_height, pooled_width) = self.stem.output_size();
        let maps = self.weight.panels.vectors(S::LANES) * S::LANES;
        // Row r of the convolution's maps is stored in slot r % 3.
        let slot = width * maps;
        let mut done = None;
        for row in share(pooled_height, self.thread, self.threads) {
            let first = (2 * row).saturating_sub(1);
            let rows = first..height.min(2 * row + 2);
            for r in rows.clone() {
                if done.is_none_or(|done| r > done) {
                    let out = Out {
                        values: self.scratch,
                        at: r % 3 * slot,
                        stride: maps,
                        relu: false,
                    };
                    self.row(simd, r, out);
                    done = Some(r);
                }
            }
            // SAFETY: the scratch is this thread's own, and nothing writes to it here.
            let convolved = unsafe { self.scratch.read() };
            for x in 0..pooled_width {
                let at = self.out.at + (row * pooled_width + x) * self.out.stride;
                // SAFETY: each thread writes rows of its own.
                let into = unsafe { self.out.values.part(at..at + maps).write() };
                into.fill(0.0);
                for r in rows.clone() {
                    for column in (2 * x).saturating_sub(1)..width.min(2 * x + 2) {
                        let from = &convolved[r % 3 * slot + column * maps..][..maps];
                        for (most, &value) in into.iter_mut().zip(from) {
                            // Starting from zero is the ReLU; a NaN stays.
                            *most = if value <= *most || most.is_nan() {
                                *most
                            } else {
                                value
                            };
                        }
                    }
                }
            }
        }
    }
}

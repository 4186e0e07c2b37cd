//! How the left operand of a product is loaded: BN and ReLU are applied as it is loaded, and not
//! stored.

use std::ops::Range;

use super::normal::{Affine, relu};
use super::pairs;
use super::product::{Form, Rows};
use super::simd::{Bf16, Kernel, Simd};
use crate::memory::Memory;

/// Fills tiles of a product's left operand.
pub trait Load: Sync {
    /// Fills the rows `pixels` and channels `channels` into rows of `stride`. Elements between the
    /// last channel and the stride are left alone.
    ///
    /// Implementations are `#[inline(always)]`.
    fn load<S: Simd>(
        &self,
        simd: S,
        pixels: Range<usize>,
        channels: Range<usize>,
        into: &mut [f32],
        stride: usize,
    );

    /// Prefetches some channels of a pixel; the range may be empty.
    #[inline(always)]
    fn expect<S: Simd>(&self, simd: S, pixel: usize, channels: Range<usize>) {
        let _ = (simd, pixel, channels);
    }

    /// Loads rows in the form of a product's left operand. `values` and `pairs` hold them.
    #[inline(always)]
    fn operand<'a, S: Simd>(
        &self,
        simd: S,
        form: Form,
        pixels: Range<usize>,
        channels: Range<usize>,
        values: &'a mut Memory<f32>,
        pairs: &'a mut Memory<f32>,
    ) -> Rows<'a> {
        let (count, depth) = (pixels.len(), channels.len());
        let stride = depth.next_multiple_of(16);
        let values = values.need(count * stride);
        self.load(simd, pixels, channels, values, stride);
        if depth < form.whole(depth) {
            for row in values.chunks_exact_mut(stride) {
                row[depth] = 0.0;
            }
        }
        let rows = Rows {
            values,
            stride,
            count,
        };
        pairs::of_columns(simd, form, rows, pairs)
    }
}

/// Values as they are.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    /// Pixels x stride.
    pub values: &'a [f32],
    pub stride: usize,
}

impl Load for Values<'_> {
    #[inline(always)]
    fn load<S: Simd>(
        &self,
        _: S,
        pixels: Range<usize>,
        channels: Range<usize>,
        into: &mut [f32],
        stride: usize,
    ) {
        for (pixel, row) in pixels.zip(into.chunks_exact_mut(stride)) {
            let from = &self.values[pixel * self.stride..][channels.clone()];
            // In a loop, because a call takes longer to copy so few.
            for (into, from) in row.iter_mut().zip(from) {
                *into = *from;
            }
        }
    }
}

/// BN and ReLU of the first channels of a buffer.
#[derive(Clone, Copy)]
pub struct NormRelu<'a> {
    /// Pixels x stride.
    pub x: &'a [f32],
    pub stride: usize,
    pub affine: &'a Affine,
}

impl NormRelu<'_> {
    /// One pixel.
    #[inline(always)]
    pub fn pixel<S: Simd>(&self, simd: S, pixel: usize, channels: Range<usize>, into: &mut [f32]) {
        let x = &self.x[pixel * self.stride..][channels.clone()];
        let scale = &self.affine.scale[channels.clone()];
        let shift = &self.affine.shift[channels];
        for (((into, x), scale), shift) in into.iter_mut().zip(x).zip(scale).zip(shift) {
            *into = relu(simd.scalar_fma(*x, *scale, *shift));
        }
    }
}

impl Load for NormRelu<'_> {
    #[inline(always)]
    fn load<S: Simd>(
        &self,
        simd: S,
        pixels: Range<usize>,
        channels: Range<usize>,
        into: &mut [f32],
        stride: usize,
    ) {
        for (pixel, row) in pixels.zip(into.chunks_exact_mut(stride)) {
            self.pixel(simd, pixel, channels.clone(), &mut row[..channels.len()]);
        }
    }

    #[inline(always)]
    fn expect<S: Simd>(&self, simd: S, pixel: usize, channels: Range<usize>) {
        let pixel = self.x.as_ptr().wrapping_add(pixel * self.stride);
        for c in channels.step_by(16) {
            simd.prefetch_far(pixel.wrapping_add(c));
        }
    }

    #[inline(always)]
    fn operand<'a, S: Simd>(
        &self,
        simd: S,
        form: Form,
        pixels: Range<usize>,
        channels: Range<usize>,
        values: &'a mut Memory<f32>,
        pairs: &'a mut Memory<f32>,
    ) -> Rows<'a> {
        let (count, stride) = (pixels.len(), channels.len().next_multiple_of(16));
        let into = values.need(count * stride);
        let rows = |values, stride| Rows {
            values,
            stride,
            count,
        };
        match form {
            Form::Plain => {
                self.load(simd, pixels, channels, into, stride);
                rows(into, stride)
            }
            Form::Rounded => {
                self.load(simd, pixels, channels, into, stride);
                pairs::of_columns(simd, form, rows(into, stride), pairs)
            }
            Form::Pairs(proof) => {
                let into = &mut into[..count * stride / 2];
                let kernel = LoadPairs {
                    source: *self,
                    pixels,
                    channels,
                    into: &mut *into,
                    stride: stride / 2,
                    proof,
                };
                simd.outline_pairs(proof, kernel);
                rows(into, stride)
            }
        }
    }
}

/// BN and ReLU, with the result as pairs of channels; `stride` elements are whole vectors of
/// values.
struct LoadPairs<'a> {
    source: NormRelu<'a>,
    pixels: Range<usize>,
    channels: Range<usize>,
    into: &'a mut [f32],
    stride: usize,
    proof: Bf16,
}

impl Kernel for LoadPairs<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            source,
            pixels,
            channels,
            into,
            stride,
            proof,
        } = self;
        let n = channels.len();
        let scale = &source.affine.scale[channels.clone()];
        let shift = &source.affine.shift[channels.clone()];
        // Memory holds `n` channels, and as many whole vectors of them as `n` allows.
        assert!(n.div_ceil(S::LANES) * S::LANES / 2 <= stride);
        for (pixel, row) in pixels.zip(into.chunks_exact_mut(stride)) {
            let x = &source.x[pixel * source.stride..][channels.clone()];
            for c in (0..n).step_by(S::LANES) {
                let count = S::LANES.min(n - c);
                // SAFETY: `count` channels from `c` on can be read, and by the assertion the pairs
                // of a vector can be written. Lanes beyond the channels become zeros.
                unsafe {
                    let part = |values: &[f32]| simd.load_part(values.as_ptr().add(c), count);
                    let z = simd.fma(part(x), part(scale), part(shift));
                    simd.store_pairs(proof, row.as_mut_ptr().add(c / 2), simd.relu(z));
                }
            }
        }
    }
}

/// Feature maps of one size, image by image, and their 2x2 average pool.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// The height before the pool.
    pub height: usize,
    /// The width before the pool.
    pub width: usize,
}

impl Pool {
    /// Pooled pixels of an image.
    pub fn pixels(self) -> usize {
        (self.height / 2) * (self.width / 2)
    }

    /// The four pixels that are averaged into pooled pixel `q`, counted over all images.
    #[inline(always)]
    pub fn corners(self, q: usize) -> [usize; 4] {
        let pooled = self.width / 2;
        let (image, inside) = (q / self.pixels(), q % self.pixels());
        let (row, column) = (inside / pooled, inside % pooled);
        let first = image * self.height * self.width + 2 * row * self.width + 2 * column;
        [first, first + 1, first + self.width, first + self.width + 1]
    }
}

/// BN, ReLU and 2x2 average pool. A transition's pool commutes with its 1x1 convolution, so the
/// pool comes first and the convolution has a quarter of the pixels.
#[derive(Clone, Copy)]
pub struct Pooled<'a> {
    pub source: NormRelu<'a>,
    pub pool: Pool,
}

impl Load for Pooled<'_> {
    #[inline(always)]
    fn load<S: Simd>(
        &self,
        simd: S,
        pixels: Range<usize>,
        channels: Range<usize>,
        into: &mut [f32],
        stride: usize,
    ) {
        let NormRelu {
            x,
            stride: from,
            affine,
        } = self.source;
        let scale = &affine.scale[channels.clone()];
        let shift = &affine.shift[channels.clone()];
        let n = scale.len();
        for (q, row) in pixels.zip(into.chunks_exact_mut(stride)) {
            let [a, b, c, d] = self
                .pool
                .corners(q)
                .map(|pixel| &x[pixel * from + channels.start..][..n]);
            let row = &mut row[..n];
            for i in 0..n {
                let at = |x: f32| relu(simd.scalar_fma(x, scale[i], shift[i]));
                row[i] = 0.25 * ((at(a[i]) + at(b[i])) + (at(c[i]) + at(d[i])));
            }
        }
    }
}

/// The pixels under a convolution's kernel, for images with few channels: channel `(ky * kernel +
/// kx) * channels + c` of output pixel p.
#[derive(Clone, Copy)]
pub struct Patches<'a> {
    /// Batch x height x width x channels.
    pub images: &'a [f32],
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
}

impl Patches<'_> {
    /// Height and width of the convolution's output; padding is half the kernel.
    pub fn output_size(&self) -> (usize, usize) {
        (
            self.height.div_ceil(self.stride),
            self.width.div_ceil(self.stride),
        )
    }

    /// For each of the kernel's pixels at output pixel `p`: its position in the kernel and the
    /// pixel of the image, or `None` in the padding.
    #[inline(always)]
    pub fn under(&self, p: usize, mut each: impl FnMut(usize, Option<usize>)) {
        let (out_height, out_width) = self.output_size();
        let (image, inside) = (p / (out_height * out_width), p % (out_height * out_width));
        let (row, column) = (inside / out_width, inside % out_width);
        let padding = self.kernel / 2;
        for ky in 0..self.kernel {
            let y = (row * self.stride + ky).wrapping_sub(padding);
            for kx in 0..self.kernel {
                let x = (column * self.stride + kx).wrapping_sub(padding);
                let pixel = (y < self.height && x < self.width)
                    .then(|| (image * self.height + y) * self.width + x);
                each(ky * self.kernel + kx, pixel);
            }
        }
    }
}

impl Load for Patches<'_> {
    #[inline(always)]
    fn load<S: Simd>(
        &self,
        _: S,
        pixels: Range<usize>,
        channels: Range<usize>,
        into: &mut [f32],
        stride: usize,
    ) {
        let n = self.channels;
        for (p, row) in pixels.zip(into.chunks_exact_mut(stride)) {
            self.under(p, |place, pixel| {
                for c in 0..n {
                    // A pixel of the kernel may extend beyond the ends of the range.
                    let at = (place * n + c).wrapping_sub(channels.start);
                    if at < channels.len() {
                        row[at] = pixel.map_or(0.0, |pixel| self.images[pixel * n + c]);
                    }
                }
            });
        }
    }
}

//! 3x3 convolutions with padding 1 by Winograd's algorithm (see `kernel::winograd`).

use std::ops::Range;

use super::memory::Shared;
use super::product::{Contraction, Out, Right, Start, chunks, count, multiply};
use super::share;
use crate::engine::padded;
use crate::kernel::bounds::span;
use crate::kernel::element::{Element, Single};
use crate::kernel::pairs;
use crate::kernel::product::{Form, Panels, Rows, blocks};
use crate::kernel::simd::{Kernel, Simd};
use crate::kernel::winograd::{PLACES, of_patch, to_outputs};

/// Patches of a tile.
const PATCHES: usize = 28;
/// Channels of a tile.
const CHANNELS: usize = 192;

/// Numbers that a thread needs for its tile.
pub(super) fn scratch(channels: usize, maps: usize) -> usize {
    let (patches, sums) = sizes(channels, padded(maps));
    patches + sums + padded(channels)
}

/// Sizes of a tile's transformed patches and of their products.
fn sizes(channels: usize, width: usize) -> (usize, usize) {
    let patches = PLACES * PATCHES * stride(channels.min(CHANNELS));
    (patches, PLACES * PATCHES * width)
}

/// The stride of a tile's rows, chosen so that they do not compete for the same cache lines.
fn stride(channels: usize) -> usize {
    padded(channels) + 16
}

/// A 3x3 convolution of some images.
pub(super) struct Spatial<'a> {
    /// Pixels x stride; a whole vector can be read from any channel on.
    pub values: &'a [f32],
    pub stride: usize,
    pub channels: usize,
    pub form: Form,
    pub height: usize,
    pub width: usize,
    pub images: usize,
    /// The packed weights of the places, one after another.
    pub weight: &'a [f32],
    pub maps: usize,
    pub out: Out<'a>,
    /// The index of the thread that runs this, and the number of threads that share the work.
    pub thread: usize,
    pub threads: usize,
    pub scratch: Shared<'a>,
}

impl Kernel for Spatial<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let panels = Panels {
            depth: self.form.whole(self.channels),
            columns: self.maps,
            form: self.form,
        };
        let width = panels.vectors(S::LANES) * S::LANES;
        let (patches, sums) = sizes(self.channels, width);
        let tile = self.scratch.part(0..patches);
        let products = self.scratch.part(patches..patches + sums);
        let zeros = self
            .scratch
            .part(patches + sums..patches + sums + padded(self.channels));
        // SAFETY: the scratch is this thread's own, and its parts do not overlap.
        let zeros = unsafe {
            zeros.write().fill(0.0);
            zeros.read()
        };
        let all = self.images * self.height.div_ceil(2) * self.width.div_ceil(2);
        let own = share(all, self.thread, self.threads);
        for (start, patches) in blocks(own.len(), PATCHES) {
            let first = own.start + start;
            for (from, depth) in chunks(self.channels, CHANNELS) {
                let stride = stride(depth);
                // SAFETY: as above; the slice is dropped before the tile is read.
                let into = unsafe { tile.write() };
                let load = Load {
                    spatial: &self,
                    first,
                    patches,
                    channels: from..from + depth,
                    zeros,
                    into: &mut *into,
                    stride,
                };
                match self.form {
                    Form::Pairs(proof) => simd.outline_pairs(proof, load),
                    Form::Plain | Form::Rounded => load.run(simd),
                }
                if self.form == Form::Rounded {
                    pairs::round_all(&mut into[..PLACES * patches * stride]);
                }
                // SAFETY: nothing writes to the tile while the products are computed.
                let tile = unsafe { tile.read() };
                for place in 0..PLACES {
                    let weight = &self.weight[place * panels.len(S::LANES)..];
                    // SAFETY: the products are this thread's own.
                    unsafe {
                        multiply(
                            simd,
                            Rows {
                                values: &tile[place * patches * stride / self.form.unit()..],
                                stride,
                                count: patches,
                            },
                            Contraction {
                                taps: &[0],
                                channels: self.form.whole(depth),
                                first: from,
                            },
                            Right {
                                panels,
                                values: &weight[..panels.len(S::LANES)],
                            },
                            0..count(panels, S::LANES),
                            Out {
                                values: products,
                                at: place * patches * width,
                                stride: width,
                                relu: false,
                            },
                            if from > 0 { Start::There } else { Start::Zero },
                        );
                    }
                }
            }
            // SAFETY: nothing writes to the products while they are read.
            let products = unsafe { products.read() };
            for patch in 0..patches {
                let from = &products[patch * width..];
                self.store(simd, first + patch, from, patches * width, width);
            }
        }
    }
}

/// Transforms some channels of the patches of a tile; rows of `stride` values.
struct Load<'a, 'b> {
    spatial: &'a Spatial<'b>,
    first: usize,
    patches: usize,
    channels: Range<usize>,
    zeros: &'a [f32],
    into: &'a mut [f32],
    stride: usize,
}

impl Kernel for Load<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            spatial,
            first,
            patches,
            channels,
            zeros,
            into,
            stride,
        } = self;
        let stride = stride / spatial.form.unit();
        let apart = patches * stride;
        for patch in 0..patches {
            let place = &mut into[patch * stride..];
            let source = Source {
                patch: first + patch,
                channels: channels.clone(),
                zeros,
            };
            match spatial.form {
                Form::Pairs(pair) => spatial.load(simd, pair, source, place, apart),
                Form::Plain | Form::Rounded => spatial.load(simd, Single, source, place, apart),
            }
        }
    }
}

/// Some channels of a patch, and the zeros that pad the image.
struct Source<'a> {
    patch: usize,
    channels: Range<usize>,
    zeros: &'a [f32],
}

impl Spatial<'_> {
    /// The image, row and column of a patch's first output pixel.
    #[inline(always)]
    fn corner(&self, patch: usize) -> (usize, usize, usize) {
        let (rows, columns) = (self.height.div_ceil(2), self.width.div_ceil(2));
        let inside = patch % (rows * columns);
        (
            patch / (rows * columns),
            2 * (inside / columns),
            2 * (inside % columns),
        )
    }

    /// Transforms some channels of a patch. Place p of the result, as values or pairs of channels,
    /// goes to `p * apart`.
    #[inline(always)]
    fn load<S: Simd, E: Element>(
        &self,
        simd: S,
        element: E,
        source: Source<'_>,
        into: &mut [f32],
        apart: usize,
    ) {
        let Source {
            patch,
            channels,
            zeros,
        } = source;
        let (image, y, x) = self.corner(patch);
        let vectors = channels.len().div_ceil(S::LANES);
        let end = channels
            .start
            .saturating_add(vectors.saturating_mul(S::LANES));
        assert!(end <= zeros.len());
        assert!(span(PLACES, apart, vectors * S::LANES / E::VALUES) <= into.len());
        let pixels: [*const f32; PLACES] = std::array::from_fn(|place| {
            let row = (y + place / 4).wrapping_sub(1);
            let column = (x + place % 4).wrapping_sub(1);
            if row < self.height && column < self.width {
                let pixel = (image * self.height + row) * self.width + column;
                self.values[pixel * self.stride..][..end].as_ptr()
            } else {
                zeros.as_ptr()
            }
        });
        for v in 0..vectors {
            let channel = channels.start + v * S::LANES;
            // SAFETY: every pixel holds `end` channels; the assertion bounds what is written.
            unsafe {
                let d = std::array::from_fn(|row| {
                    std::array::from_fn(|column| simd.load(pixels[4 * row + column].add(channel)))
                });
                for (row, values) in of_patch(simd, d).into_iter().enumerate() {
                    for (column, value) in values.into_iter().enumerate() {
                        let at = (4 * row + column) * apart + v * S::LANES / E::VALUES;
                        element.store(simd, into.as_mut_ptr().add(at), value);
                    }
                }
            }
        }
    }

    /// Transforms a patch's products back. The product of place p is at `p * apart`.
    #[inline(always)]
    fn store<S: Simd>(&self, simd: S, patch: usize, from: &[f32], apart: usize, width: usize) {
        let (image, y, x) = self.corner(patch);
        assert!(span(PLACES, apart, width) <= from.len());
        let target = |row: usize, column: usize| {
            let inside = y + row < self.height && x + column < self.width;
            let pixel = (image * self.height + y + row) * self.width + x + column;
            inside.then(|| {
                let at = self.out.at + pixel * self.out.stride;
                self.out.values.pointer(at, width)
            })
        };
        let targets = [[target(0, 0), target(0, 1)], [target(1, 0), target(1, 1)]];
        for column in (0..width).step_by(S::LANES) {
            // SAFETY: the assertion and `pointer` bound what is read and written; a pixel
            // belongs to one patch, and a patch to one thread.
            unsafe {
                let m = std::array::from_fn(|row| {
                    std::array::from_fn(|c| {
                        simd.load(from.as_ptr().add((4 * row + c) * apart + column))
                    })
                });
                for (values, targets) in to_outputs(simd, m).into_iter().zip(targets) {
                    for (value, target) in values.into_iter().zip(targets) {
                        if let Some(target) = target {
                            simd.store(target.add(column), value);
                        }
                    }
                }
            }
        }
    }
}

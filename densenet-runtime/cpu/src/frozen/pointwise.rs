//! 1x1 convolutions over tiles of pixels. BN and ReLU are applied as the operand is loaded, bias
//! and ReLU as the result is written.
//!
//! Many pixels are divided among the threads. If there are few pixels, the threads divide the maps
//! instead, so that each weight comes through the cache once.

use std::ops::Range;

use super::memory::Shared;
use super::product::{Contraction, Out, Right, Start, chunks, count, multiply};
use super::share;
use crate::engine::padded;
use crate::kernel::bounds::span;
use crate::kernel::element::{Element, Single};
use crate::kernel::load::Pool;
use crate::kernel::pairs;
use crate::kernel::product::{Form, Rows, blocks};
use crate::kernel::simd::{Kernel, Simd};

/// Pixels of a tile.
const TILE_PIXELS: usize = 112;
/// Channels of a tile's operand.
const DEPTH: usize = 384;
/// If a thread would have fewer pixels than this, the maps are divided instead.
const FEW_PIXELS: usize = 64;

/// Numbers that a thread needs for its tile.
pub(super) fn scratch(channels: usize) -> usize {
    TILE_PIXELS * stride(channels.min(DEPTH))
}

/// The stride of a tile's rows, chosen so that they do not compete for the same cache lines.
fn stride(channels: usize) -> usize {
    padded(channels) + 16
}

/// BN as a multiply-add, in whole vectors.
#[derive(Clone, Copy)]
pub(super) struct Affine<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
}

/// What a convolution reads: maps before BN and ReLU.
#[derive(Clone, Copy)]
pub(super) struct Maps<'a> {
    /// Pixels x stride; a whole vector can be read from any channel on.
    pub values: &'a [f32],
    pub stride: usize,
    pub affine: Affine<'a>,
}

/// A 1x1 convolution of some pixels.
pub(super) struct Pointwise<'a> {
    pub maps: Maps<'a>,
    /// The pool after the ReLU, if there is one: each pixel is the mean of four.
    pub pool: Option<Pool>,
    /// The number of pixels after the pool.
    pub pixels: usize,
    /// The number of channels that it reads.
    pub channels: usize,
    pub weight: Right<'a>,
    /// The bias of each map, padded to whole vectors. If there is a bias, a ReLU follows it.
    pub bias: Option<&'a [f32]>,
    pub out: Out<'a>,
    /// The index of the thread that runs this, and the number of threads that share the work.
    pub thread: usize,
    pub threads: usize,
    pub scratch: Shared<'a>,
}

impl Kernel for Pointwise<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let panels = count(self.weight.panels, S::LANES);
        let by_maps = self.pixels < FEW_PIXELS * self.threads && panels >= self.threads;
        let (pixels, panels) = if by_maps {
            (0..self.pixels, share(panels, self.thread, self.threads))
        } else {
            (share(self.pixels, self.thread, self.threads), 0..panels)
        };
        if panels.is_empty() {
            return;
        }
        let form = self.weight.panels.form;
        let channels = self.channels;
        // SAFETY: the scratch is this thread's own.
        let operand = unsafe { self.scratch.write() };
        for (start, count) in blocks(pixels.len(), TILE_PIXELS) {
            let first = pixels.start + start;
            for (from, depth) in chunks(channels, DEPTH) {
                let stride = stride(depth);
                let range = from..from + depth;
                let tile = Tile {
                    maps: self.maps,
                    pool: self.pool,
                    first,
                    count,
                    channels: range,
                };
                match form {
                    Form::Pairs(proof) => {
                        let (into, stride) = (&mut *operand, stride / 2);
                        let load = Load {
                            tile,
                            element: proof,
                            into,
                            stride,
                        };
                        simd.outline_pairs(proof, load);
                    }
                    Form::Plain | Form::Rounded => {
                        let (element, into) = (Single, &mut *operand);
                        let load = Load {
                            tile,
                            element,
                            into,
                            stride,
                        };
                        load.run(simd);
                    }
                }
                if form == Form::Rounded {
                    pairs::round_all(&mut operand[..count * stride]);
                }
                let start = match self.bias {
                    _ if from > 0 => Start::There,
                    Some(bias) => Start::Bias(bias),
                    None => Start::Zero,
                };
                let out = Out {
                    at: self.out.at + first * self.out.stride,
                    relu: self.bias.is_some() && from + depth == channels,
                    ..self.out
                };
                // SAFETY: each thread writes pixels or panels of its own.
                unsafe {
                    multiply(
                        simd,
                        Rows {
                            values: operand,
                            stride,
                            count,
                        },
                        Contraction {
                            taps: &[0],
                            channels: form.whole(depth),
                            first: from,
                        },
                        self.weight,
                        panels.clone(),
                        out,
                        start,
                    );
                }
            }
        }
    }
}

/// Some channels of the pixels from `first` on. If there is a pool, these are its pixels.
struct Tile<'a> {
    maps: Maps<'a>,
    pool: Option<Pool>,
    first: usize,
    count: usize,
    channels: Range<usize>,
}

/// Applies BN and ReLU to a tile, and writes rows of `stride` elements, which are values or pairs.
struct Load<'a, E> {
    tile: Tile<'a>,
    element: E,
    into: &'a mut [f32],
    stride: usize,
}

impl<E: Element> Kernel for Load<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            tile,
            element,
            into,
            stride,
        } = self;
        match tile.pool {
            None => tile.load(simd, element, into, stride),
            Some(pool) => tile.load_pooled(simd, element, pool, into, stride),
        }
    }
}

impl Tile<'_> {
    #[inline(always)]
    fn load<S: Simd, E: Element>(self, simd: S, element: E, into: &mut [f32], stride: usize) {
        /// How many pixels share one load of scale and shift.
        const GROUP: usize = 4;
        let Self {
            maps,
            first,
            count,
            channels,
            ..
        } = self;
        if count == 0 {
            return;
        }
        let vectors = channels.len().div_ceil(S::LANES);
        let end = channels
            .start
            .saturating_add(vectors.saturating_mul(S::LANES));
        assert!(end <= maps.affine.scale.len() && end <= maps.affine.shift.len());
        assert!(span(first.saturating_add(count), maps.stride, end) <= maps.values.len());
        assert!(span(count, stride, vectors * S::LANES / E::VALUES) <= into.len());
        for (group, pixels) in blocks(count, GROUP) {
            for v in 0..vectors {
                let channel = channels.start + v * S::LANES;
                // Beyond the channels there may be maps of earlier images, and NaN times a weight of 0 is NaN.
                let lanes = S::LANES.min(channels.len() - v * S::LANES);
                // SAFETY: the assertions bound all vectors of all pixels.
                unsafe {
                    let scale = simd.load(maps.affine.scale.as_ptr().add(channel));
                    let shift = simd.load(maps.affine.shift.as_ptr().add(channel));
                    for pixel in group..group + pixels {
                        let at = (first + pixel) * maps.stride + channel;
                        let x = simd.load_part(maps.values.as_ptr().add(at), lanes);
                        let value = simd.relu(simd.fma(x, scale, shift));
                        let at = pixel * stride + v * S::LANES / E::VALUES;
                        element.store(simd, into.as_mut_ptr().add(at), value);
                    }
                }
            }
        }
    }

    /// Loads pixels as above, with a 2x2 average pool after the ReLU.
    #[inline(always)]
    fn load_pooled<S: Simd, E: Element>(
        self,
        simd: S,
        element: E,
        pool: Pool,
        into: &mut [f32],
        stride: usize,
    ) {
        let Self {
            maps,
            first,
            count,
            channels,
            ..
        } = self;
        let vectors = channels.len().div_ceil(S::LANES);
        let end = channels
            .start
            .saturating_add(vectors.saturating_mul(S::LANES));
        assert!(end <= maps.affine.scale.len() && end <= maps.affine.shift.len());
        let rows = into.chunks_mut(stride).take(count);
        let quarter = [0.25f32];
        for (row, q) in rows.zip(first..) {
            let corners = pool.corners(q);
            let furthest = corners[3].saturating_add(1);
            assert!(span(furthest, maps.stride, end) <= maps.values.len());
            assert!(vectors * S::LANES / E::VALUES <= row.len());
            for v in 0..vectors {
                let channel = channels.start + v * S::LANES;
                let lanes = S::LANES.min(channels.len() - v * S::LANES);
                // SAFETY: the assertions bound all vectors; the last corner is the furthest.
                unsafe {
                    let scale = simd.load(maps.affine.scale.as_ptr().add(channel));
                    let shift = simd.load(maps.affine.shift.as_ptr().add(channel));
                    let mut sum = simd.zero();
                    for pixel in corners {
                        let at = pixel * maps.stride + channel;
                        let x = simd.load_part(maps.values.as_ptr().add(at), lanes);
                        sum = simd.add(sum, simd.relu(simd.fma(x, scale, shift)));
                    }
                    let mean = simd.fma(sum, simd.splat(quarter.as_ptr()), simd.zero());
                    let at = v * S::LANES / E::VALUES;
                    element.store(simd, row.as_mut_ptr().add(at), mean);
                }
            }
        }
    }
}

/// BN and ReLU of some pixels, stored as the input of a plain layer's 3x3 convolution.
pub(super) struct Normalise<'a> {
    pub maps: Maps<'a>,
    pub channels: usize,
    pub pixels: usize,
    pub out: Out<'a>,
    /// The index of the thread that runs this, and the number of threads that share the work.
    pub thread: usize,
    pub threads: usize,
}

impl Kernel for Normalise<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let pixels = share(self.pixels, self.thread, self.threads);
        let start = self.out.at + pixels.start * self.out.stride;
        let rows = self
            .out
            .values
            .part(start..start + pixels.len() * self.out.stride);
        // SAFETY: each thread writes pixels of its own.
        let into = unsafe { rows.write() };
        let (first, count) = (pixels.start, pixels.len());
        let tile = Tile {
            maps: self.maps,
            pool: None,
            first,
            count,
            channels: 0..self.channels,
        };
        tile.load(simd, Single, into, self.out.stride);
    }
}

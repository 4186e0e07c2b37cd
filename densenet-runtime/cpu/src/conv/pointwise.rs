//! 1x1 convolutions: products over pixels. BN and ReLU are applied as the operand is loaded, and
//! statistics are measured as the result is written.
//!
//! Forward, for P pixels, C channels in and N out: 2 P C N operations; P C values are read and P N
//! written, once. Backward: twice the operations; the input and its gradient are each passed once.

use std::ops::Range;

use crate::engine::{Engine, Scratch, need, padded};
use crate::kernel::dropout::Dropout;
use crate::kernel::emit::{Runs, emit};
use crate::kernel::load::Load;
use crate::kernel::matrix::Matrix;
use crate::kernel::normal::Norm;
use crate::kernel::pairs;
use crate::kernel::product::{
    Contraction, Form, Out, Panels, Rows, accumulate, blocks, multiply_while,
};
use crate::kernel::pullback::{PullBack, Tile, TileMut};
use crate::kernel::simd::{Kernel, Simd};

/// Pixels of a tile.
const TILE_PIXELS: usize = 112;
/// Channels of a tile's operand. With its share of the weight, it stays in the L2 cache.
const DEPTH: usize = 384;
/// Pixels of a tile in the backward pass.
const BACK_TILE: usize = 56;
/// Channels at a time in the backward pass, in whole panels at every level.
const BACK_CHANNELS: usize = 256;

/// Where the maps of a convolution are written, and what is done with them at that time.
pub struct Destination<'a> {
    pub values: &'a mut [f32],
    pub columns: OutputColumns,
}

/// The columns from `column` on, in rows of `stride` elements.
#[derive(Clone, Copy)]
pub struct OutputColumns {
    pub stride: usize,
    pub column: usize,
    /// The dropout of the maps.
    pub dropout: Option<Dropout>,
    /// Whether the maps are measured. The engine's scratch receives the moments.
    pub measure: bool,
}

impl OutputColumns {
    /// All columns, without dropout or measurement.
    pub fn all(stride: usize) -> Self {
        Self {
            stride,
            column: 0,
            dropout: None,
            measure: false,
        }
    }
}

/// Convolves with a weight in natural order (maps out x channels), which is packed into the engine.
pub fn convolve(
    engine: &mut Engine,
    load: &impl Load,
    pixels: usize,
    channels: usize,
    weight: &[f32],
    target: Destination<'_>,
) {
    let form = engine.form;
    let panels = Panels {
        depth: form.whole(channels),
        columns: weight.len() / channels,
        form,
    };
    engine.pack_matrix(panels, Matrix::of_columns(weight, channels));
    forward(engine, load, pixels, channels, panels, target);
}

/// Convolves: `target[p] = weight * load[p]`.
///
/// `engine.packed` holds the weight: `panels.depth` channels in, `panels.columns` maps out.
pub fn forward(
    engine: &mut Engine,
    load: &impl Load,
    pixels: usize,
    channels: usize,
    panels: Panels,
    target: Destination<'_>,
) {
    let level = engine.level;
    let Destination { values, columns } = target;
    engine.over_rows(values, columns.stride, pixels, |share| {
        level.run(Forward {
            load,
            pixels: share.rows,
            channels,
            panels,
            b: share.packed,
            target: Destination {
                values: share.values,
                columns,
            },
            scratch: share.scratch,
        });
    });
}

/// One thread's share of [`forward`].
struct Forward<'a, L> {
    load: &'a L,
    pixels: Range<usize>,
    channels: usize,
    panels: Panels,
    b: &'a [f32],
    target: Destination<'a>,
    scratch: &'a mut Scratch,
}

impl<L: Load> Kernel for Forward<'_, L> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            load,
            pixels,
            channels,
            panels,
            b,
            target,
            scratch,
        } = self;
        let Panels { columns, form, .. } = panels;
        let Destination {
            values,
            columns:
                OutputColumns {
                    stride,
                    column,
                    dropout,
                    measure,
                },
        } = target;
        let width = panels.vectors(S::LANES) * S::LANES;
        let in_place = column == 0 && stride == width;
        scratch.moments.reset(columns);
        for (start, count) in blocks(pixels.len(), TILE_PIXELS) {
            let first = pixels.start + start;
            // If the rows of the result are whole vectors without gaps, they are the tile.
            let tile = if in_place {
                &mut values[start * width..][..count * width]
            } else {
                need(&mut scratch.tile, count * width)
            };
            for from in (0..channels).step_by(DEPTH) {
                let depth = DEPTH.min(channels - from);
                let operand = load.operand(
                    simd,
                    form,
                    first..first + count,
                    from..from + depth,
                    &mut scratch.operand,
                    &mut scratch.pairs,
                );
                // What comes next: more channels of these pixels, or the next pixels.
                let next = if from + depth < channels {
                    (first, from + depth)
                } else {
                    (first + count, 0)
                };
                let share = DEPTH.min(channels - next.1).div_ceil(width);
                multiply_while(
                    simd,
                    operand,
                    Contraction {
                        channels: form.whole(depth),
                        first: from,
                    },
                    panels,
                    b,
                    Out {
                        values: &mut *tile,
                        stride: width,
                        add: from > 0,
                    },
                    |rows, columns| {
                        let [start, end] = [columns.start, columns.end]
                            .map(|column| (next.1 + column * share).min(channels));
                        for row in rows {
                            load.expect(simd, next.0 + row, start..end);
                        }
                    },
                );
            }
            if let Some(dropout) = dropout {
                for (row, tile) in tile.chunks_exact_mut(width).enumerate() {
                    dropout.apply((first + row) * columns, &mut tile[..columns]);
                }
            }
            // If the tile is written in place, it is measured there.
            let moments = measure.then_some(&mut scratch.moments);
            if in_place {
                emit(simd, Runs::rows(tile, width, count), columns, moments, None);
            } else {
                let at = start * stride + column;
                let into = TileMut {
                    values: &mut values[at..],
                    stride,
                };
                let tile = &scratch.tile[..count * width];
                emit(
                    simd,
                    Runs::rows(tile, width, count),
                    columns,
                    moments,
                    Some(into),
                );
            }
        }
    }
}

/// The input of a convolution in the backward pass.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Pixels x stride, before BN.
    pub x: &'a [f32],
    pub stride: usize,
    /// The channels that the convolution reads.
    pub channels: usize,
    /// The BN before the convolution.
    pub norm: Norm<'a>,
}

/// Packs the weight of [`backward`] and of a transition, which is in natural order: maps out x
/// channels.
pub fn pack_backward(engine: &mut Engine, weight: &[f32], maps: usize, channels: usize) {
    let form = engine.form;
    let panels = Panels {
        depth: form.whole(maps),
        columns: channels,
        form,
    };
    engine.pack_matrix(
        panels,
        Matrix::of_rows(&weight[..maps * channels], channels),
    );
}

/// Goes back through a 1x1 convolution, ReLU and the affine part of BN, whose input is a prefix
/// of the channels of a block.
///
/// `dy` is the gradient of the convolution's maps (pixels x maps). Adds gamma times the masked
/// gradient to `g` (rows of `input.stride`). `engine.packed` holds the packed weight. The engine's
/// scratch receives the sums and, if the weight trains, the threads' shares of its gradient (rows of
/// `padded(channels)`).
pub fn backward(
    engine: &mut Engine,
    input: Input<'_>,
    (dy, maps): (&[f32], usize),
    weight_trains: bool,
    g: &mut [f32],
) {
    let (level, form) = (engine.level, engine.form);
    engine.over_rows(g, input.stride, dy.len() / maps, |share| {
        level.run(Backward {
            form,
            input,
            dy,
            maps,
            pixels: share.rows,
            b: share.packed,
            g: share.values,
            weight_trains,
            scratch: share.scratch,
        });
    });
}

/// One thread's share of [`backward`].
struct Backward<'a> {
    form: Form,
    input: Input<'a>,
    dy: &'a [f32],
    maps: usize,
    pixels: Range<usize>,
    b: &'a [f32],
    g: &'a mut [f32],
    weight_trains: bool,
    scratch: &'a mut Scratch,
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            form,
            input,
            dy,
            maps,
            pixels,
            b,
            g,
            weight_trains,
            scratch,
        } = self;
        let Input {
            x,
            stride,
            channels,
            norm,
        } = input;
        let share = padded(channels);
        let whole = form.whole(maps);
        let weight = need(&mut scratch.weight, maps * share);
        if pixels.is_empty() {
            weight.fill(0.0);
        }
        scratch.sums.reset(channels);
        for from in (0..channels).step_by(BACK_CHANNELS) {
            let range = from..channels.min(from + BACK_CHANNELS);
            let width = padded(range.len());
            let panels = Panels {
                depth: whole,
                columns: range.len(),
                form,
            };
            let inverse = norm.inverse;
            let norm = norm.channels(range.clone());
            for (start, count) in blocks(pixels.len(), BACK_TILE) {
                let first = pixels.start + start;
                let dy = Rows {
                    values: &dy[first * maps..],
                    stride: maps,
                    count,
                };
                let left = pairs::of_columns(simd, form, dy, &mut scratch.pairs);
                let tile = need(&mut scratch.tile, count * width);
                let depth = Contraction {
                    channels: whole,
                    first: 0,
                };
                let b = &b[from * whole / form.unit()..];
                multiply_while(
                    simd,
                    left,
                    depth,
                    panels,
                    b,
                    Out {
                        values: &mut *tile,
                        stride: width,
                        add: false,
                    },
                    |rows, columns| {
                        for row in rows {
                            let at = (first + row) * stride + from;
                            let into = (start + row) * stride + from;
                            for c in columns.clone().step_by(16) {
                                simd.prefetch_far(x.as_ptr().wrapping_add(at + c));
                                simd.prefetch_far(g.as_ptr().wrapping_add(into + c));
                            }
                        }
                    },
                );
                let operand = need(&mut scratch.operand, count * width);
                for row in operand.chunks_exact_mut(width) {
                    row[range.len()..].fill(0.0);
                }
                let operand_of_weight = weight_trains.then_some(TileMut {
                    values: &mut *operand,
                    stride: width,
                });
                let (sum_scale, sum_bias) = scratch.sums.tile(range.clone());
                PullBack {
                    rows: count,
                    norm,
                    factor: norm.gamma,
                    d: Tile {
                        values: tile,
                        stride: width,
                    },
                    x: Tile {
                        values: &x[first * stride + from..],
                        stride,
                    },
                    into: TileMut {
                        values: &mut g[start * stride + from..],
                        stride,
                    },
                    add: true,
                    operand: operand_of_weight,
                    sum_scale,
                    sum_bias,
                }
                .run(simd);
                scratch.sums.flush(range.clone(), inverse);
                if !weight_trains {
                    continue;
                }
                let a = Rows {
                    values: operand,
                    stride: width,
                    count,
                };
                let d = pairs::of_rows(simd, form, dy, &mut scratch.pairs);
                let a = pairs::of_rows(simd, form, a, &mut scratch.other);
                accumulate(
                    simd,
                    form,
                    d,
                    maps,
                    a,
                    range.len(),
                    Out {
                        values: &mut weight[from..],
                        stride: share,
                        add: start > 0,
                    },
                );
            }
        }
    }
}

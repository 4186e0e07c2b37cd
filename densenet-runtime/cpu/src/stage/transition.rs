//! A transition: BN, ReLU, 1x1 convolution, 2x2 average pool.
//!
//! The pool is linear and the convolution works on each pixel alone, so they commute: the operand
//! is pooled as it is loaded, and the products have a quarter of the pixels. Only dropout, which
//! comes between them, requires the paper's order.

use std::ops::Range;

use super::{Forward, Maps, MapsGradient};
use crate::conv::pointwise::{self, Destination, Input, OutputColumns};
use crate::engine::{Engine, Parts, Scratch, need, need_zeros, padded, split_rows};
use crate::kernel::dropout::Dropout;
use crate::kernel::emit::{Runs, emit};
use crate::kernel::load::{Load, NormRelu, Pool, Pooled};
use crate::kernel::matrix::Matrix;
use crate::kernel::pairs;
use crate::kernel::product::{Contraction, Form, Out, Panels, Rows, accumulate, blocks, multiply};
use crate::kernel::pullback::{PullBack, Tile, TileMut};
use crate::kernel::simd::{Kernel, Simd};
use crate::stage;
use densenet_plan::{Transition, TransitionTensors};

/// Pooled pixels of a tile.
const TILE_PIXELS: usize = 28;
/// Channels at a time in the backward pass, in whole panels at every level.
const CHANNELS: usize = 256;

/// Runs a transition.
pub fn forward(
    engine: &mut Engine,
    (transition, tensors): (&Transition, &TransitionTensors),
    pass: &mut Forward<'_>,
    maps: Maps<'_>,
    target: Destination<'_>,
) {
    let pool = Pool {
        height: transition.height,
        width: transition.width,
    };
    let pixels = pass.batch * pool.pixels();
    let channels = transition.input;
    let weight = tensors.conv.weight.of(pass.parameters);
    let source = maps.normalised(pass, &tensors.norm, pass.batch * transition.pixels());
    let Destination { values, columns } = target;
    let Some(dropout) = columns.dropout else {
        let load = Pooled { source, pool };
        let target = Destination { values, columns };
        return pointwise::convolve(engine, &load, pixels, channels, weight, target);
    };
    let form = engine.form;
    let panels = Panels {
        depth: form.whole(channels),
        columns: transition.output,
        form,
    };
    engine.pack_matrix(panels, Matrix::of_columns(weight, channels));
    let level = engine.level;
    engine.over_rows(values, columns.stride, pixels, |share| {
        level.run(Dropped {
            channels,
            source,
            pool,
            pixels: share.rows,
            panels,
            b: share.packed,
            target: Destination {
                values: share.values,
                columns,
            },
            dropout,
            scratch: share.scratch,
        });
    });
}

/// One thread's share of a forward pass with dropout: convolution, dropout, pool.
struct Dropped<'a> {
    channels: usize,
    source: NormRelu<'a>,
    pool: Pool,
    pixels: Range<usize>,
    panels: Panels,
    b: &'a [f32],
    target: Destination<'a>,
    dropout: Dropout,
    scratch: &'a mut Scratch,
}

impl Kernel for Dropped<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            channels,
            source,
            pool,
            pixels,
            panels,
            b,
            target,
            dropout,
            scratch,
        } = self;
        let OutputColumns {
            stride: out_stride,
            column,
            measure,
            ..
        } = target.columns;
        let Panels { columns, form, .. } = panels;
        let width = panels.vectors(S::LANES) * S::LANES;
        let stride = padded(channels);
        scratch.moments.reset(columns);
        for (start, count) in blocks(pixels.len(), TILE_PIXELS) {
            let operand = need(&mut scratch.operand, 4 * count * stride);
            let tile = need(&mut scratch.tile, 4 * count * width);
            for (q, rows) in operand.chunks_exact_mut(4 * stride).enumerate() {
                let corners = pool.corners(pixels.start + start + q);
                for (corner, row) in corners.into_iter().zip(rows.chunks_exact_mut(stride)) {
                    let (values, rest) = row.split_at_mut(channels);
                    source.pixel(simd, corner, 0..channels, values);
                    rest.fill(0.0);
                }
            }
            let rows = Rows {
                values: operand,
                stride,
                count: 4 * count,
            };
            let rows = pairs::of_columns(simd, form, rows, &mut scratch.pairs);
            let depth = Contraction {
                channels: form.whole(channels),
                first: 0,
            };
            multiply(
                simd,
                rows,
                depth,
                panels,
                b,
                Out {
                    values: tile,
                    stride: width,
                    add: false,
                },
            );
            for (q, rows) in tile.chunks_exact_mut(4 * width).enumerate() {
                let corners = pool.corners(pixels.start + start + q);
                for (corner, row) in corners.into_iter().zip(rows.chunks_exact_mut(width)) {
                    dropout.apply(corner * columns, &mut row[..columns]);
                }
                let at = (start + q) * out_stride + column;
                let out = &mut target.values[at..][..columns];
                for (c, out) in out.iter_mut().enumerate() {
                    let at = |corner: usize| rows[corner * width + c];
                    *out = 0.25 * ((at(0) + at(1)) + (at(2) + at(3)));
                }
            }
            if measure {
                let at = start * out_stride + column;
                let out = Runs::rows(&target.values[at..], out_stride, count);
                emit(simd, out, columns, Some(&mut scratch.moments), None);
            }
        }
    }
}

/// Goes back through a transition; `dout` is the gradient of its output (pooled pixels x maps).
pub fn backward(
    engine: &mut Engine,
    (transition, tensors): (&Transition, &TransitionTensors),
    pass: &mut stage::Backward<'_>,
    maps: Maps<'_>,
    dout: &[f32],
    dropout: Option<Dropout>,
    into: MapsGradient<'_>,
) {
    let (channels, output) = (transition.input, transition.output);
    let weight = tensors.conv.weight;
    pointwise::pack_backward(engine, weight.of(pass.parameters), output, channels);
    let input = maps.input(pass, &tensors.norm);
    let weight_trains = !pass.frozen.has(weight);
    let dout = (dout, dropout);
    let stage = (transition, weight_trains);
    pull_back(engine, stage, pass.batch, input, dout, into.g);
    pass.start(engine, &tensors.norm, into.sums);
    if weight_trains {
        let weight_gradient = pass.gradients.range(weight.range());
        engine.add_weight(weight_gradient, channels, padded(channels));
    }
}

/// Sets `g` to gamma times the masked gradient. `engine.packed` holds the packed weight. The
/// engine's scratch receives the sums and, if the weight trains, the threads' shares of its gradient
/// (rows of `padded(channels)`).
fn pull_back(
    engine: &mut Engine,
    (transition, weight_trains): (&Transition, bool),
    batch: usize,
    input: Input<'_>,
    (dout, dropout): (&[f32], Option<Dropout>),
    g: &mut [f32],
) {
    let pool = Pool {
        height: transition.height,
        width: transition.width,
    };
    // Whole rows of pooled pixels, so that a thread owns the pixels under them. Pixels that the
    // pool leaves out belong to the last row of their image.
    let rows = transition.height / 2;
    let shares = engine.shares(batch * rows);
    let below = |row: usize| (row / rows * transition.height + 2 * (row % rows)) * transition.width;
    let pixels: Parts<_> = shares
        .iter()
        .map(|rows| below(rows.start)..below(rows.end))
        .collect();
    let (level, form) = (engine.level, engine.form);
    let b = &*engine.packed;
    let mut parts: Parts<_> = shares
        .into_iter()
        .zip(pixels.iter().cloned())
        .zip(split_rows(g, input.stride, &pixels))
        .zip(&mut engine.scratch)
        .collect();
    let pooled = transition.width / 2;
    engine
        .team
        .each(&mut parts, |_, (((rows, pixels), g), scratch)| {
            level.run(PullBackRows {
                form,
                pool,
                input,
                dout,
                maps: transition.output,
                pooled: rows.start * pooled..rows.end * pooled,
                first: pixels.start,
                b,
                g,
                dropout,
                weight_trains,
                scratch,
            });
        });
}

/// One thread's share of [`pull_back`]. It differs from that of a 1x1 convolution: a row of the
/// product is a pooled pixel, whose gradient goes to four pixels that are not consecutive; and it
/// sets `g` instead of adding, because it is the first in the backward pass.
struct PullBackRows<'a> {
    form: Form,
    pool: Pool,
    input: Input<'a>,
    dout: &'a [f32],
    maps: usize,
    pooled: Range<usize>,
    /// The pixel that `g` starts at.
    first: usize,
    b: &'a [f32],
    g: &'a mut [f32],
    dropout: Option<Dropout>,
    weight_trains: bool,
    scratch: &'a mut Scratch,
}

impl Kernel for PullBackRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            form,
            pool,
            input,
            dout,
            maps,
            pooled,
            first,
            b,
            g,
            dropout,
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
        if pooled.is_empty() {
            weight.fill(0.0);
        }
        scratch.sums.reset(channels);
        let source = NormRelu {
            x,
            stride,
            affine: norm.affine,
        };
        let load = Pooled { source, pool };
        if pool.height % 2 + pool.width % 2 > 0 {
            g.fill(0.0);
        }
        // With dropout the product has a row for each pixel, otherwise one for each pooled pixel.
        let group = if dropout.is_some() { 4 } else { 1 };
        for from in (0..channels).step_by(CHANNELS) {
            let range = from..channels.min(from + CHANNELS);
            let width = padded(range.len());
            let panels = Panels {
                depth: whole,
                columns: range.len(),
                form,
            };
            let slice = norm.channels(range.clone());
            // Each of the four pixels receives a quarter of the pooled pixel's gradient.
            let mut factor = [0.0; CHANNELS];
            for (factor, gamma) in factor.iter_mut().zip(slice.gamma) {
                *factor = 0.25 * gamma;
            }
            for (start, count) in blocks(pooled.len(), TILE_PIXELS) {
                let add = start > 0;
                let start = pooled.start + start;
                let dy = match dropout {
                    None => &dout[start * maps..][..count * maps],
                    Some(dropout) => {
                        let dy = need(&mut scratch.other, 4 * count * maps);
                        for (q, rows) in dy.chunks_exact_mut(4 * maps).enumerate() {
                            let from = &dout[(start + q) * maps..][..maps];
                            let corners = pool.corners(start + q);
                            for (corner, row) in
                                corners.into_iter().zip(rows.chunks_exact_mut(maps))
                            {
                                row.copy_from_slice(from);
                                dropout.apply(corner * maps, row);
                            }
                        }
                        dy
                    }
                };
                let dy = Rows {
                    values: dy,
                    stride: maps,
                    count: count * group,
                };
                let tile = need(&mut scratch.tile, count * group * width);
                let depth = Contraction {
                    channels: whole,
                    first: 0,
                };
                multiply(
                    simd,
                    pairs::of_columns(simd, form, dy, &mut scratch.pairs),
                    depth,
                    panels,
                    &b[from * whole / form.unit()..],
                    Out {
                        values: tile,
                        stride: width,
                        add: false,
                    },
                );
                let (sum_scale, sum_bias) = scratch.sums.tile(range.clone());
                for q in 0..count {
                    for (corner, p) in pool.corners(start + q).into_iter().enumerate() {
                        PullBack {
                            rows: 1,
                            norm: slice,
                            factor: &factor[..range.len()],
                            d: Tile {
                                values: &tile[(q * group + corner % group) * width..],
                                stride: width,
                            },
                            x: Tile {
                                values: &x[p * stride + from..],
                                stride,
                            },
                            into: TileMut {
                                values: &mut g[(p - first) * stride + from..],
                                stride,
                            },
                            add: false,
                            operand: None,
                            sum_scale: &mut *sum_scale,
                            sum_bias: &mut *sum_bias,
                        }
                        .run(simd);
                    }
                }
                scratch.sums.flush(range.clone(), norm.inverse);
                if !weight_trains {
                    continue;
                }
                let operand = need_zeros(&mut scratch.operand, count * group * width);
                match dropout {
                    None => load.load(simd, start..start + count, range.clone(), operand, width),
                    Some(_) => {
                        let corners = (start..start + count).flat_map(|q| pool.corners(q));
                        for (corner, row) in corners.zip(operand.chunks_exact_mut(width)) {
                            let row = &mut row[..range.len()];
                            load.source.pixel(simd, corner, range.clone(), row);
                            row.iter_mut().for_each(|value| *value *= 0.25);
                        }
                    }
                }
                let a = Rows {
                    values: operand,
                    stride: width,
                    count: count * group,
                };
                accumulate(
                    simd,
                    form,
                    pairs::of_rows(simd, form, dy, &mut scratch.pairs),
                    maps,
                    pairs::of_rows(simd, form, a, &mut scratch.gradient),
                    range.len(),
                    Out {
                        values: &mut weight[from..],
                        stride: share,
                        add,
                    },
                );
            }
        }
        scratch.sums.scale_all(0.25);
    }
}

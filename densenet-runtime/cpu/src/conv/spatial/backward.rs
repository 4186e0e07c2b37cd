//! The backward pass of a 3x3 convolution: from the gradient of the maps to those of the weight and
//! of the input.

use std::ops::Range;

use super::patches::{PatchRows, load_strip, transform_tile};
use super::{Shape, Sink};
use crate::engine::{Engine, Scratch, need, padded};
use crate::kernel::load::{NormRelu, Values};
use crate::kernel::normal::Norm;
use crate::kernel::pairs;
use crate::kernel::product::{Contraction, Form, Out, Panels, accumulate, multiply};
use crate::kernel::pullback::{PullBack, Tile, TileMut};
use crate::kernel::simd::{Kernel, Simd};
use crate::kernel::winograd::{Layout, PLACES, Pairs, transform_back};

/// The approximate number of patches in a tile.
const PATCHES: usize = 32;
/// Channels of a tile, in whole panels at every level.
const CHANNELS: usize = 64;

/// Goes back through a 3x3 convolution, ReLU and the affine part of BN.
///
/// `dout` is the gradient of the maps (pixels x maps). `engine.packed` holds the weight, packed by
/// [`super::pack_backward`]. The engine's scratch receives the sums and, if the weight trains, the
/// threads' shares of the gradient of the transformed weight ((place x maps) rows of
/// `padded(channels)`), for [`super::add_weight`].
pub fn backward(
    engine: &mut Engine,
    shape: Shape,
    x: (&[f32], usize),
    norm: Norm<'_>,
    (dout, weight_trains): (&[f32], bool),
    sink: Sink<'_>,
) {
    let Shape {
        size,
        channels,
        maps,
    } = shape;
    let (level, form) = (engine.level, engine.form);
    let patches = PatchRows(size);
    let images = dout.len() / maps / (size.height * size.width);
    let (values, stride, add) = match sink {
        Sink::Store(values) => (values, channels, false),
        Sink::Add(values, stride) => (values, stride, true),
    };
    let at = |row| patches.start(row) * size.width * stride;
    engine.over(values, patches.count(images), at, |share| {
        level.run(Backward {
            form,
            x,
            channels,
            norm,
            patches,
            dout,
            maps,
            rows: share.rows,
            b: share.packed,
            into: TileMut {
                values: share.values,
                stride,
            },
            add,
            weight_trains,
            scratch: share.scratch,
        });
    });
}

/// One thread's share of [`backward`].
struct Backward<'a> {
    form: Form,
    x: (&'a [f32], usize),
    channels: usize,
    norm: Norm<'a>,
    patches: PatchRows,
    dout: &'a [f32],
    maps: usize,
    rows: Range<usize>,
    b: &'a [f32],
    into: TileMut<'a>,
    add: bool,
    weight_trains: bool,
    scratch: &'a mut Scratch,
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            form,
            x,
            channels,
            norm,
            patches,
            dout,
            maps,
            rows,
            b,
            into,
            add,
            weight_trains,
            scratch,
        } = self;
        let source = NormRelu {
            x: x.0,
            stride: x.1,
            affine: norm.affine,
        };
        let gradient = Values {
            values: dout,
            stride: maps,
        };
        let columns = patches.columns();
        let share = padded(channels);
        let whole = form.whole(maps);
        let weight = need(&mut scratch.weight, PLACES * maps * share);
        if rows.is_empty() {
            weight.fill(0.0);
        }
        let all = Panels {
            depth: whole,
            columns: channels,
            form,
        };
        let start = patches.pixels(0..rows.start).end;
        scratch.sums.reset(channels);
        let ones = [1.0; CHANNELS];
        let first_row = rows.start;
        for tile in patches.tiles(rows, PATCHES) {
            let pixels = patches.pixels(tile.clone());
            // The gradient, transformed twice: as the outputs of this convolution, and as the input
            // of the convolution with the turned kernel.
            let of_rows = form.pairs(Pairs::Patches);
            let outer = Layout::new(tile.len(), columns, maps, of_rows);
            let inner = Layout::new(tile.len(), columns, maps, form.pairs(Pairs::Channels));
            let both = need(&mut scratch.gradient, outer.len() + inner.len());
            let (outputs, inputs) = both.split_at_mut(outer.len());
            for (index, row) in tile.clone().enumerate() {
                let memory = &mut scratch.other;
                let strip = load_strip(simd, patches, row, &gradient, 0..maps, memory, index > 0);
                if weight_trains {
                    strip.transform_outputs(simd, maps, &mut outputs[outer.row(index)..], outer);
                }
                strip.transform(simd, maps, &mut inputs[inner.row(index)..], inner);
            }
            if form == Form::Rounded {
                let unread = if weight_trains { 0 } else { outer.len() };
                pairs::round_all(&mut both[unread..]);
            }
            let (outputs, inputs) = both.split_at(outer.len());
            for from in (0..channels).step_by(CHANNELS) {
                let range = from..channels.min(from + CHANNELS);
                let layout = Layout::new(tile.len(), columns, range.len(), of_rows);
                let operand = need(&mut scratch.operand, layout.len());
                if weight_trains {
                    let memory = &mut scratch.other;
                    transform_tile(
                        simd,
                        patches,
                        tile.clone(),
                        source,
                        range.clone(),
                        memory,
                        (&mut *operand, layout),
                    );
                    if form == Form::Rounded {
                        pairs::round_all(operand);
                    }
                }
                let panels = Panels {
                    columns: range.len(),
                    ..all
                };
                let width = panels.vectors(S::LANES) * S::LANES;
                let products = Layout::of_products(tile.len(), columns, width);
                let sums = need(&mut scratch.places, products.len());
                for place in 0..PLACES {
                    if weight_trains {
                        accumulate(
                            simd,
                            form,
                            outer.rows(outputs, place),
                            maps,
                            layout.rows(operand, place),
                            range.len(),
                            Out {
                                values: &mut weight[place * maps * share + from..],
                                stride: share,
                                add: tile.start > first_row,
                            },
                        );
                    }
                    multiply(
                        simd,
                        inner.rows(inputs, place),
                        Contraction {
                            channels: whole,
                            first: 0,
                        },
                        panels,
                        &b[place * all.len(S::LANES) + from * whole / form.unit()..],
                        Out {
                            values: &mut sums[products.place(place)..],
                            stride: width,
                            add: false,
                        },
                    );
                }
                let values = need(&mut scratch.tile, pixels.len() * width);
                for (index, row) in tile.clone().enumerate() {
                    let first = patches.start(row) * patches.0.width - pixels.start;
                    transform_back(
                        simd,
                        &sums[products.row(index)..],
                        products,
                        width,
                        (patches.height(row), patches.0.width),
                        &mut values[first * width..],
                    );
                }
                let slice = norm.channels(range.clone());
                let (sum_scale, sum_bias) = scratch.sums.tile(range.clone());
                PullBack {
                    rows: pixels.len(),
                    norm: slice,
                    factor: if add {
                        slice.gamma
                    } else {
                        &ones[..range.len()]
                    },
                    d: Tile {
                        values,
                        stride: width,
                    },
                    x: Tile {
                        values: &x.0[pixels.start * x.1 + from..],
                        stride: x.1,
                    },
                    into: TileMut {
                        values: &mut into.values[(pixels.start - start) * into.stride + from..],
                        stride: into.stride,
                    },
                    add,
                    operand: None,
                    sum_scale,
                    sum_bias,
                }
                .run(simd);
                scratch.sums.flush(range, norm.inverse);
            }
        }
    }
}

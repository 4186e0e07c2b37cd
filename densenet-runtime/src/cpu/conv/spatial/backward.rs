//! From the gradient of the maps to those of the weight and of what it read.

use std::ops::Range;

use super::patches::{PatchRows, fill_rest, load_strip};
use super::{Sink, Size};
use crate::cpu::engine::{Engine, Scratch, need, need_zeros, padded};
use crate::cpu::kernel::load::{Load, NormRelu};
use crate::cpu::kernel::normal::Norm;
use crate::cpu::kernel::pairs;
use crate::cpu::kernel::product::{Depth, Form, Panels, Rows, accumulate, multiply};
use crate::cpu::kernel::pullback::{PullBack, Tile, TileMut};
use crate::cpu::kernel::simd::{Kernel, Simd};
use crate::cpu::kernel::winograd::{Layout, PLACES, Strip, transform_back};

/// Patches of a tile, about.
const PATCHES: usize = 56;
/// Channels of a tile, in whole panels of every level.
const CHANNELS: usize = 64;

/// Goes back through a 3x3 convolution, ReLU and the affine part of BN.
///
/// `dout` is the gradient of the maps (pixels x maps). The weight is in `engine.packed`, by
/// [`super::pack_backward`]; the threads' shares of the gradient of the transformed weight
/// ((place x maps) rows of `padded(channels)`), for [`super::add_weight`], and the sums are left
/// in the engine's scratch.
pub(crate) fn backward(
    engine: &mut Engine,
    x: (&[f32], usize),
    channels: usize,
    norm: Norm<'_>,
    size: Size,
    dout: &[f32],
    maps: usize,
    sink: Sink<'_>,
) {
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
            scratch,
        } = self;
        let source = NormRelu {
            x: x.0,
            stride: x.1,
            affine: norm.affine,
        };
        let columns = patches.columns();
        let share = padded(channels);
        let whole = form.whole(maps);
        let weight = need_zeros(&mut scratch.weight, PLACES * maps * share);
        let all = Panels {
            depth: whole,
            columns: channels,
            form,
        };
        let start = patches.pixels(0..rows.start).end;
        scratch.sums.reset(channels);
        let ones = [1.0; CHANNELS];
        for tile in patches.tiles(rows, PATCHES) {
            let count = tile.len() * columns;
            let pixels = patches.pixels(tile.clone());
            // The gradient, transformed as the outputs that it is and as the input that it is of
            // the convolution with the turned kernel.
            let outer = Layout::new(count, maps);
            let both = need(&mut scratch.gradient, 2 * outer.len());
            let (outputs, inputs) = both.split_at_mut(outer.len());
            for (index, row) in tile.clone().enumerate() {
                let stride = padded(maps);
                let strip = need(&mut scratch.other, 4 * Strip::pitch(columns) * stride);
                load_strip(patches, row, stride, strip, |first, line| {
                    let from = &dout[first * maps..][..patches.0.width * maps];
                    let rows = line.chunks_exact_mut(stride);
                    for (into, from) in rows.zip(from.chunks_exact(maps)) {
                        for (into, from) in into.iter_mut().zip(from) {
                            *into = *from;
                        }
                    }
                    fill_rest(line, stride, maps);
                });
                let strip = Strip {
                    values: strip,
                    columns,
                    stride,
                };
                let at = index * columns * outer.stride;
                strip.transform_outputs(simd, maps, &mut outputs[at..], outer);
                strip.transform(simd, maps, &mut inputs[at..], outer);
            }
            for from in (0..channels).step_by(CHANNELS) {
                let range = from..channels.min(from + CHANNELS);
                let layout = Layout::new(count, range.len());
                let operand = need(&mut scratch.operand, layout.len());
                for (index, row) in tile.clone().enumerate() {
                    let stride = padded(range.len());
                    let strip = need(&mut scratch.other, 4 * Strip::pitch(columns) * stride);
                    load_strip(patches, row, stride, strip, |first, line| {
                        let pixels = first..first + patches.0.width;
                        source.load(simd, pixels, range.clone(), line, stride);
                        fill_rest(line, stride, range.len());
                    });
                    let strip = Strip {
                        values: strip,
                        columns,
                        stride,
                    };
                    let into = &mut operand[index * columns * layout.stride..];
                    strip.transform(simd, range.len(), into, layout);
                }
                let panels = Panels {
                    columns: range.len(),
                    ..all
                };
                let width = panels.vectors(S::LANES) * S::LANES;
                let sums_layout = Layout {
                    stride: width,
                    apart: count * width,
                };
                let sums = need(&mut scratch.places, sums_layout.len());
                for place in 0..PLACES {
                    let outputs = &mut outputs[place * outer.apart..][..outer.apart];
                    let inputs = &mut inputs[place * outer.apart..][..outer.apart];
                    let operand = &mut operand[place * layout.apart..][..layout.apart];
                    let (depth, outputs, operand, inputs) = match form {
                        Form::Plain => (count, outputs, operand, inputs),
                        Form::Rounded => {
                            for values in [&mut *outputs, &mut *inputs, &mut *operand] {
                                pairs::round_all(values);
                            }
                            (count, outputs, operand, inputs)
                        }
                        Form::Pairs => {
                            let depth = count.div_ceil(2);
                            let lens = [depth * outer.stride, depth * layout.stride];
                            let len = lens[0] + lens[1] + outer.apart / 2;
                            let all = need(&mut scratch.pairs, len);
                            let (by_rows, rest) = all.split_at_mut(lens[0]);
                            let (operands, by_columns) = rest.split_at_mut(lens[1]);
                            pairs::of_rows(simd, outputs, outer.stride, by_rows);
                            pairs::of_rows(simd, operand, layout.stride, operands);
                            pairs::of_columns(simd, inputs, by_columns);
                            (depth, by_rows, operands, by_columns)
                        }
                    };
                    accumulate(
                        simd,
                        form,
                        Rows {
                            values: outputs,
                            stride: outer.stride,
                            count: depth,
                        },
                        maps,
                        Rows {
                            values: operand,
                            stride: layout.stride,
                            count: depth,
                        },
                        range.len(),
                        &mut weight[place * maps * share + from..],
                        share,
                    );
                    multiply(
                        simd,
                        Rows {
                            values: inputs,
                            stride: outer.stride,
                            count,
                        },
                        Depth {
                            taps: &[0],
                            channels: whole,
                            first: 0,
                        },
                        panels,
                        &b[place * all.len(S::LANES) + from * whole / form.unit()..],
                        &mut sums[place * sums_layout.apart..],
                        width,
                        false,
                    );
                }
                let values = need(&mut scratch.tile, pixels.len() * width);
                for (index, row) in tile.clone().enumerate() {
                    let first = patches.start(row) * patches.0.width - pixels.start;
                    transform_back(
                        simd,
                        &sums[index * columns * width..],
                        sums_layout,
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

//! From the gradient of the maps to those of the weight and of what it read.

use std::ops::Range;

use super::tile::{CHANNELS, load_gradient, load_tile};
use crate::cpu::conv::spatial::{Sink, Size};
use crate::cpu::engine::{Engine, Parts, Scratch, need, need_zeros, padded, split_rows};
use crate::cpu::kernel::load::NormRelu;
use crate::cpu::kernel::normal::Norm;
use crate::cpu::kernel::pairs;
use crate::cpu::kernel::product::{Depth, Form, Panels, Rows, accumulate, multiply};
use crate::cpu::kernel::pullback::{PullBack, Tile, TileMut};
use crate::cpu::kernel::simd::{Kernel, Simd};

/// Packs a weight (maps x channels x 3 x 3) for [`backward`]: maps in, channels out, the kernel
/// turned by 180 degrees.
pub(crate) fn pack_backward(engine: &mut Engine, weight: &[f32], maps: usize, channels: usize) {
    let form = engine.form;
    let whole = form.whole(maps);
    let panels = Panels {
        depth: 9 * whole,
        columns: channels,
        form,
    };
    engine.pack(panels, |row, c| {
        let (tap, m) = (row / whole, row % whole);
        if m < maps {
            weight[(m * channels + c) * 9 + (8 - tap)]
        } else {
            0.0
        }
    });
}

/// Goes back through a 3x3 convolution, ReLU and the affine part of BN.
///
/// `dout` is the gradient of the maps (pixels x maps). The weight's packed form is in
/// `engine.packed`; the shares of the weight's gradient ((tap x maps) rows of
/// `padded(channels)`) and the sums are left in the engine's scratch.
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
    let batch_rows = dout.len() / maps / size.width;
    let (level, form) = (engine.level, engine.form);
    let (values, stride, add) = match sink {
        Sink::Store(values) => (values, channels, false),
        Sink::Add(values, stride) => (values, stride, true),
    };
    engine.over_rows(values, stride * size.width, batch_rows, |share| {
        let sink = if add {
            Sink::Add(share.values, stride)
        } else {
            Sink::Store(share.values)
        };
        level.run(Backward {
            form,
            x,
            channels,
            norm,
            size,
            dout,
            maps,
            rows: share.rows,
            b: share.packed,
            sink,
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
    size: Size,
    dout: &'a [f32],
    maps: usize,
    rows: Range<usize>,
    b: &'a [f32],
    sink: Sink<'a>,
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
            size,
            dout,
            maps,
            rows,
            b,
            mut sink,
            scratch,
        } = self;
        let source = NormRelu {
            x: x.0,
            stride: x.1,
            affine: norm.affine,
        };
        let share = padded(channels);
        let dstride = padded(maps);
        let whole = form.whole(maps);
        let weight = need_zeros(&mut scratch.weight, 9 * maps * share);
        let start = rows.start;
        scratch.sums.reset(channels);
        let ones = [1.0; CHANNELS];
        for (first, count) in size.tiles(rows) {
            let outputs = size.outputs(count);
            let gradient = need(&mut scratch.other, size.padded_pixels(count) * dstride);
            load_gradient(dout, maps, size, (first, count), gradient);
            if form == Form::Rounded {
                pairs::round_all(gradient);
            }
            // The output pixels are in the middle of the padded tile.
            let middle = (size.pitch() + 1) * dstride;
            let dtaps = size.taps().map(|tap| tap * dstride);
            let (left, sums) = match form {
                Form::Plain | Form::Rounded => (
                    Rows {
                        values: gradient,
                        stride: dstride,
                        count: outputs,
                    },
                    Rows {
                        values: &gradient[middle..],
                        stride: dstride,
                        count: outputs,
                    },
                ),
                Form::Pairs => {
                    let count = outputs.div_ceil(2);
                    let columns = need(&mut scratch.gradient, gradient.len() / 2 + count * dstride);
                    let (columns, rows) = columns.split_at_mut(gradient.len() / 2);
                    pairs::of_columns(simd, gradient, columns);
                    // A pair's second pixel may be the zeros behind the last row.
                    pairs::of_rows(&gradient[middle..][..2 * count * dstride], dstride, rows);
                    (
                        Rows {
                            values: columns,
                            stride: dstride,
                            count: outputs,
                        },
                        Rows {
                            values: rows,
                            stride: dstride,
                            count,
                        },
                    )
                }
            };
            for from in (0..channels).step_by(CHANNELS) {
                let range = from..channels.min(from + CHANNELS);
                let width = padded(range.len());
                let operand = need(&mut scratch.operand, size.padded_pixels(count) * width);
                load_tile(simd, source, range.clone(), size, (first, count), operand);
                // Pairs of pixels start at even pixels for even taps and at odd ones for odd.
                if form == Form::Rounded {
                    pairs::round_all(operand);
                }
                let (even, odd) = match form {
                    Form::Plain | Form::Rounded => (&operand[..], &[][..]),
                    Form::Pairs => {
                        let len = (operand.len() / width).div_ceil(2) * width;
                        let both = need(&mut scratch.pairs, 2 * len + width);
                        let (even, odd) = both.split_at_mut(len);
                        pairs::of_rows(operand, width, even);
                        pairs::of_rows(&operand[width..], width, odd);
                        (&*even, &*odd)
                    }
                };
                for (tap, offset) in size.taps().into_iter().enumerate() {
                    let values = match form {
                        Form::Plain | Form::Rounded => &even[offset * width..],
                        Form::Pairs if offset % 2 == 0 => &even[offset / 2 * width..],
                        Form::Pairs => &odd[offset / 2 * width..],
                    };
                    accumulate(
                        simd,
                        form,
                        sums,
                        maps,
                        Rows {
                            values,
                            stride: width,
                            count: sums.count,
                        },
                        range.len(),
                        &mut weight[tap * maps * share + from..],
                        share,
                    );
                }
                let panels = Panels {
                    depth: 9 * whole,
                    columns: range.len(),
                    form,
                };
                let tile = need(&mut scratch.tile, outputs * width);
                multiply(
                    simd,
                    left,
                    Depth {
                        taps: &dtaps,
                        channels: whole,
                        first: 0,
                    },
                    panels,
                    &b[from * 9 * whole / form.unit()..],
                    tile,
                    width,
                    false,
                );
                let slice = norm.channels(range.clone());
                let (sum_scale, sum_bias) = scratch.sums.tile(range.clone());
                for row in 0..count {
                    let p = (first + row) * size.width;
                    let local = p - start * size.width;
                    let (into, stride, factor, add) = match &mut sink {
                        Sink::Store(values) => (
                            &mut values[local * channels..],
                            channels,
                            &ones[..range.len()],
                            false,
                        ),
                        Sink::Add(values, stride) => {
                            (&mut values[local * *stride..], *stride, slice.gamma, true)
                        }
                    };
                    PullBack {
                        rows: size.width,
                        norm: slice,
                        factor,
                        d: Tile {
                            values: &tile[row * size.pitch() * width..],
                            stride: width,
                        },
                        x: Tile {
                            values: &x.0[p * x.1 + from..],
                            stride: x.1,
                        },
                        into: TileMut {
                            values: &mut into[from..],
                            stride,
                        },
                        add,
                        operand: None,
                        sum_scale: &mut *sum_scale,
                        sum_bias: &mut *sum_bias,
                    }
                    .run(simd);
                }
                scratch.sums.flush(range, norm.inverse);
            }
        }
    }
}

/// Adds the threads' shares of a 3x3 weight's gradient into `gradient` (maps x channels x 3 x 3).
pub(crate) fn add_weight(engine: &mut Engine, gradient: &mut [f32], maps: usize, channels: usize) {
    let shares = engine.shares(maps);
    let share = padded(channels);
    let scratch = &engine.scratch;
    let mut parts: Parts<_> = shares
        .iter()
        .cloned()
        .zip(split_rows(gradient, 9 * channels, &shares))
        .collect();
    engine.team.each(&mut parts, |_, (range, gradient)| {
        for (m, into) in range.clone().zip(gradient.chunks_exact_mut(9 * channels)) {
            for scratch in scratch {
                for tap in 0..9 {
                    let from = &scratch.weight[(tap * maps + m) * share..][..channels];
                    for (into, from) in into[tap..].iter_mut().step_by(9).zip(from) {
                        *into += from;
                    }
                }
            }
        }
    });
}

//! 3x3 convolutions with padding 1, as nine shifted products over zero-padded tiles.
//!
//! A tile is some rows of one image with a row above and below and one column of zeros between
//! the rows: that column is the right padding of one row and the left padding of the next. So a
//! pixel's neighbour is always the same number of rows away, and the convolution is one product
//! over consecutive rows with nine taps. The values at the column of zeros are computed and
//! thrown away: 1 in width + 1.
//!
//! Forward and backward of the data are 18 P C K operations each for P pixels, C channels in and
//! K maps out, as is the gradient of the weight.

use std::ops::Range;

use crate::cpu::conv::pointwise::Target;
use crate::cpu::engine::{Engine, Parts, Scratch, need, need_zeros, padded, split_rows};
use crate::cpu::kernel::dropout::Dropout;
use crate::cpu::kernel::emit::{Runs, emit};
use crate::cpu::kernel::load::NormRelu;
use crate::cpu::kernel::normal::Norm;
use crate::cpu::kernel::pairs;
use crate::cpu::kernel::product::{Depth, Form, Panels, Rows, accumulate, multiply};
use crate::cpu::kernel::pullback::{PullBack, Tile, TileMut};
use crate::cpu::kernel::simd::{Kernel, Simd};

/// Channels of a tile, in whole panels of every level.
const CHANNELS: usize = 192;
/// Pixels of a tile, about.
const TILE_PIXELS: usize = 224;

/// Height and width of some feature maps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub height: usize,
    pub width: usize,
}

impl Size {
    /// Pixels from one row of a padded tile to the next.
    fn pitch(self) -> usize {
        self.width + 1
    }

    /// Pixels of a padded tile for `rows` rows of output.
    fn padded_pixels(self, rows: usize) -> usize {
        (rows + 2) * self.pitch() + 1
    }

    /// Output pixels of a tile, with the zeros between rows.
    fn outputs(self, rows: usize) -> usize {
        rows * self.pitch() - 1
    }

    /// Offset of each neighbour, in pixels of the padded tile.
    fn taps(self) -> [usize; 9] {
        std::array::from_fn(|tap| (tap / 3) * self.pitch() + tap % 3)
    }

    /// Cuts rows, counted over all images, into tiles within an image; yields the first row and
    /// the number of rows.
    fn tiles(self, rows: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let most = (TILE_PIXELS / self.pitch()).max(1);
        let mut next = rows.start;
        std::iter::from_fn(move || {
            let left = (self.height - next % self.height).min(rows.end - next);
            let count = left.div_ceil(left.div_ceil(most).max(1));
            let tile = (next, count);
            next += count;
            (count > 0).then_some(tile)
        })
    }

    /// The rows of a padded tile (0 is above the first) that lie within the image, with the
    /// image row of each, counted over all images.
    #[inline(always)]
    fn inside(self, first: usize, rows: usize) -> impl Iterator<Item = (usize, Option<usize>)> {
        let top = first - first % self.height;
        (0..rows + 2).map(move |row| {
            let y = (first + row).wrapping_sub(1);
            let within = first + row > top && y < top + self.height;
            (row, within.then_some(y))
        })
    }
}

/// The row of a packed weight that tap `tap` and channel `c` of the kernel are, as
/// [`forward`] wants it: chunks of channels, taps within, channels within.
fn unpack(row: usize, channels: usize) -> (usize, usize) {
    let chunk = row / (9 * CHANNELS) * CHANNELS;
    let count = CHANNELS.min(channels - chunk);
    let inside = row - 9 * chunk;
    (inside / count, chunk + inside % count)
}

/// Packs a weight (maps x channels x 3 x 3) for [`forward`].
pub(crate) fn pack_forward(engine: &mut Engine, weight: &[f32], maps: usize, channels: usize) {
    let form = engine.form;
    let whole = form.whole(channels);
    let panels = Panels {
        depth: 9 * whole,
        columns: maps,
        form,
    };
    engine.pack(panels, |row, m| {
        let (tap, c) = unpack(row, whole);
        if c < channels {
            weight[(m * channels + c) * 9 + tap]
        } else {
            0.0
        }
    });
}

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

/// Convolves the first `channels` of a buffer, BN and ReLU on the way, and measures the result
/// if asked.
///
/// The weight is in `engine.packed`; the moments are left in the engine's scratch.
pub(crate) fn forward(
    engine: &mut Engine,
    source: NormRelu<'_>,
    channels: usize,
    size: Size,
    batch: usize,
    maps: usize,
    target: Target<'_>,
    dropout: Option<Dropout>,
    measure: bool,
) {
    let shares = engine.shares(batch * size.height);
    let level = engine.level;
    let form = engine.form;
    let b = &*engine.packed;
    let Target {
        values,
        stride,
        column,
    } = target;
    let rows = split_rows(values, stride * size.width, &shares);
    let mut parts: Parts<_> = shares
        .into_iter()
        .zip(rows)
        .zip(&mut engine.scratch)
        .map(|((rows, out), scratch)| (rows, out, scratch))
        .collect();
    engine.team.each(&mut parts, |_, (rows, out, scratch)| {
        level.run(Forward {
            form,
            source,
            channels,
            size,
            maps,
            rows: rows.clone(),
            b,
            target: Target {
                values: out,
                stride,
                column,
            },
            dropout,
            measure,
            scratch,
        });
    });
}

/// One thread's share of [`forward`].
struct Forward<'a> {
    form: Form,
    source: NormRelu<'a>,
    channels: usize,
    size: Size,
    maps: usize,
    rows: Range<usize>,
    b: &'a [f32],
    target: Target<'a>,
    dropout: Option<Dropout>,
    measure: bool,
    scratch: &'a mut Scratch,
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            form,
            source,
            channels,
            size,
            maps,
            rows,
            b,
            target,
            dropout,
            measure,
            scratch,
        } = self;
        let panels = Panels {
            depth: 9 * form.whole(channels),
            columns: maps,
            form,
        };
        let out = panels.vectors(S::LANES) * S::LANES;
        let start = rows.start;
        scratch.moments.reset(maps);
        for (first, count) in size.tiles(rows) {
            let outputs = size.outputs(count);
            let tile = need(&mut scratch.tile, outputs * out);
            for from in (0..channels).step_by(CHANNELS) {
                let range = from..channels.min(from + CHANNELS);
                let stride = padded(range.len());
                let operand = need(&mut scratch.operand, size.padded_pixels(count) * stride);
                load_tile(simd, source, range.clone(), size, (first, count), operand);
                let taps = size.taps().map(|tap| tap * stride);
                if form == Form::Rounded {
                    pairs::round_all(operand);
                }
                let values = match form {
                    Form::Plain | Form::Rounded => &*operand,
                    Form::Pairs => {
                        let pairs = need(&mut scratch.pairs, operand.len() / 2);
                        pairs::of_columns(simd, operand, pairs);
                        pairs
                    }
                };
                multiply(
                    simd,
                    Rows {
                        values,
                        stride,
                        count: outputs,
                    },
                    Depth {
                        taps: &taps,
                        channels: form.whole(range.len()),
                        first: 9 * from,
                    },
                    panels,
                    b,
                    tile,
                    out,
                    from > 0,
                );
            }
            let pixel = |row: usize, x: usize| (row * size.pitch() + x) * out;
            if let Some(dropout) = dropout {
                for row in 0..count {
                    for x in 0..size.width {
                        let index = ((first + row) * size.width + x) * maps;
                        dropout.apply(index, &mut tile[pixel(row, x)..][..maps]);
                    }
                }
            }
            let runs = Runs {
                values: tile,
                stride: out,
                runs: count,
                len: size.width,
                pitch: size.pitch(),
            };
            let at = (first - start) * size.width * target.stride + target.column;
            let into = TileMut {
                values: &mut target.values[at..],
                stride: target.stride,
            };
            emit(
                simd,
                runs,
                maps,
                measure.then_some(&mut scratch.moments),
                Some(into),
            );
        }
    }
}

/// Fills a padded tile with BN and ReLU of some channels.
#[inline(always)]
fn load_tile<S: Simd>(
    simd: S,
    source: NormRelu<'_>,
    channels: Range<usize>,
    size: Size,
    (first, rows): (usize, usize),
    into: &mut [f32],
) {
    let stride = padded(channels.len());
    into[..stride].fill(0.0);
    for (row, y) in size.inside(first, rows) {
        let line = &mut into[(1 + row * size.pitch()) * stride..][..size.pitch() * stride];
        let Some(y) = y else {
            line.fill(0.0);
            continue;
        };
        let (pixels, zeros) = line.split_at_mut(size.width * stride);
        zeros.fill(0.0);
        for (x, pixel) in pixels.chunks_exact_mut(stride).enumerate() {
            let (values, rest) = pixel.split_at_mut(channels.len());
            source.pixel(simd, y * size.width + x, channels.clone(), values);
            rest.fill(0.0);
        }
    }
}

/// What becomes of the masked gradient of a convolution's input.
pub(crate) enum Sink<'a> {
    /// It is stored: pixels x channels.
    Store(&'a mut [f32]),
    /// Gamma times it is added: rows of this stride.
    Add(&'a mut [f32], usize),
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
    let shares = engine.shares(batch_rows);
    let level = engine.level;
    let form = engine.form;
    let b = &*engine.packed;
    let (values, stride, add) = match sink {
        Sink::Store(values) => (values, channels, false),
        Sink::Add(values, stride) => (values, stride, true),
    };
    let rows = split_rows(values, stride * size.width, &shares);
    let mut parts: Parts<_> = shares
        .into_iter()
        .zip(rows)
        .zip(&mut engine.scratch)
        .map(|((rows, sink), scratch)| (rows, sink, scratch))
        .collect();
    engine.team.each(&mut parts, |_, (rows, sink, scratch)| {
        let sink = if add {
            Sink::Add(sink, stride)
        } else {
            Sink::Store(sink)
        };
        level.run(Backward {
            form,
            x,
            channels,
            norm,
            size,
            dout,
            maps,
            rows: rows.clone(),
            b,
            sink,
            scratch,
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
                    let columns = need(
                        &mut scratch.gradient_pairs,
                        gradient.len() / 2 + count * dstride,
                    );
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

/// Fills a padded tile with the gradient of the maps.
#[inline(always)]
fn load_gradient(
    dout: &[f32],
    maps: usize,
    size: Size,
    (first, rows): (usize, usize),
    into: &mut [f32],
) {
    let stride = padded(maps);
    into[..stride].fill(0.0);
    for (row, y) in size.inside(first, rows) {
        let line = &mut into[(1 + row * size.pitch()) * stride..][..size.pitch() * stride];
        line.fill(0.0);
        if let Some(y) = y {
            let from = dout[y * size.width * maps..][..size.width * maps].chunks_exact(maps);
            for (pixel, from) in line.chunks_exact_mut(stride).zip(from) {
                pixel[..maps].copy_from_slice(from);
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

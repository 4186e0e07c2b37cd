//! From feature maps to feature maps.

use std::ops::Range;

use super::tile::{CHANNELS, load_tile};
use crate::cpu::conv::pointwise::Target;
use crate::cpu::conv::spatial::Size;
use crate::cpu::engine::{Engine, Scratch, need, padded};
use crate::cpu::kernel::dropout::Dropout;
use crate::cpu::kernel::emit::{Runs, emit};
use crate::cpu::kernel::load::NormRelu;
use crate::cpu::kernel::pairs;
use crate::cpu::kernel::product::{Depth, Form, Panels, Rows, multiply};
use crate::cpu::kernel::pullback::TileMut;
use crate::cpu::kernel::simd::{Kernel, Simd};

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
    let (level, form) = (engine.level, engine.form);
    let Target {
        values,
        stride,
        column,
    } = target;
    engine.over_rows(values, stride * size.width, batch * size.height, |share| {
        level.run(Forward {
            form,
            source,
            channels,
            size,
            maps,
            rows: share.rows,
            b: share.packed,
            target: Target {
                values: share.values,
                stride,
                column,
            },
            dropout,
            measure,
            scratch: share.scratch,
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

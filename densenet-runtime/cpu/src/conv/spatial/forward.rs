//! The forward pass of a 3x3 convolution.

use std::ops::Range;

use super::Shape;
use super::patches::{PatchRows, transform_tile};
use crate::conv::pointwise::{Destination, OutputColumns};
use crate::engine::{Engine, Scratch, need};
use crate::kernel::emit::{Runs, emit};
use crate::kernel::load::NormRelu;
use crate::kernel::pairs;
use crate::kernel::product::{Contraction, Form, Out, Panels, multiply};
use crate::kernel::pullback::TileMut;
use crate::kernel::simd::{Kernel, Simd};
use crate::kernel::winograd::{Layout, PLACES, Pairs, transform_back};

/// The approximate number of patches in a tile.
const PATCHES: usize = 32;
/// Channels of a tile.
const CHANNELS: usize = 192;

/// Convolves the first channels of a buffer; BN and ReLU are applied as they are loaded.
///
/// `engine.packed` holds the weight, packed by [`super::pack_forward`].
pub fn forward(
    engine: &mut Engine,
    shape: Shape,
    batch: usize,
    source: NormRelu<'_>,
    target: Destination<'_>,
) {
    let (level, form) = (engine.level, engine.form);
    let Shape {
        size,
        channels,
        maps,
    } = shape;
    let patches = PatchRows(size);
    let Destination { values, columns } = target;
    let at = |row| patches.start(row) * size.width * columns.stride;
    engine.over(values, patches.count(batch), at, |share| {
        level.run(Forward {
            form,
            source,
            channels,
            patches,
            maps,
            rows: share.rows,
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
struct Forward<'a> {
    form: Form,
    source: NormRelu<'a>,
    channels: usize,
    patches: PatchRows,
    maps: usize,
    rows: Range<usize>,
    b: &'a [f32],
    target: Destination<'a>,
    scratch: &'a mut Scratch,
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            form,
            source,
            channels,
            patches,
            maps,
            rows,
            b,
            target,
            scratch,
        } = self;
        let OutputColumns {
            stride,
            column,
            dropout,
            measure,
        } = target.columns;
        let panels = Panels {
            depth: form.whole(channels),
            columns: maps,
            form,
        };
        let width = panels.vectors(S::LANES) * S::LANES;
        let columns = patches.columns();
        let start = patches.pixels(0..rows.start).end;
        scratch.moments.reset(maps);
        for tile in patches.tiles(rows, PATCHES) {
            let products = Layout::of_products(tile.len(), columns, width);
            let sums = need(&mut scratch.places, products.len());
            for from in (0..channels).step_by(CHANNELS) {
                let range = from..channels.min(from + CHANNELS);
                let of_channels = form.pairs(Pairs::Channels);
                let layout = Layout::new(tile.len(), columns, range.len(), of_channels);
                let operand = need(&mut scratch.operand, layout.len());
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
                for place in 0..PLACES {
                    multiply(
                        simd,
                        layout.rows(operand, place),
                        Contraction {
                            channels: form.whole(range.len()),
                            first: from,
                        },
                        panels,
                        &b[place * panels.len(S::LANES)..],
                        Out {
                            values: &mut sums[products.place(place)..],
                            stride: width,
                            add: from > 0,
                        },
                    );
                }
            }
            let pixels = patches.pixels(tile.clone());
            let values = need(&mut scratch.tile, pixels.len() * width);
            for (index, row) in tile.enumerate() {
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
            if let Some(dropout) = dropout {
                for (pixel, values) in pixels.clone().zip(values.chunks_exact_mut(width)) {
                    dropout.apply(pixel * maps, &mut values[..maps]);
                }
            }
            let at = (pixels.start - start) * stride + column;
            let into = TileMut {
                values: &mut target.values[at..],
                stride,
            };
            emit(
                simd,
                Runs::rows(values, width, pixels.len()),
                maps,
                measure.then_some(&mut scratch.moments),
                Some(into),
            );
        }
    }
}

//! Normalisation undone over a whole buffer.

use std::ops::Range;

use crate::cpu::engine::Engine;
use crate::cpu::kernel::dropout::Dropout;
use crate::cpu::kernel::normal::{GradientSums, Statistics, Undo};
use crate::cpu::kernel::simd::{Kernel, Simd};

/// How many rows ahead values are asked for: rows are far apart.
const AHEAD: usize = 16;

/// Undoes the normalisation of some channels, whose consumers are all done: writes their
/// gradient into `into` (pixels x columns), plus the `raw` gradient of consumers that do not
/// normalise if there are any, with dropout's mask if the maps had one.
pub(crate) fn finish(
    engine: &mut Engine,
    (g, x, stride): (&[f32], &[f32], usize),
    columns: Range<usize>,
    (statistics, sums): (&Statistics, &GradientSums),
    raw: Option<&[f32]>,
    into: &mut [f32],
    dropout: Option<Dropout>,
) {
    let count = columns.len();
    let pixels = into.len() / count;
    let level = engine.level;
    let mut undo = std::mem::take(&mut engine.undo);
    undo.set(statistics, columns.clone(), None, sums, pixels);
    engine.over_rows(into, count, pixels, |share| {
        level.run(Finish {
            undo: &undo,
            source: (g, x, stride),
            raw,
            columns: columns.clone(),
            first: share.rows.start,
            into: share.values,
            dropout,
        });
    });
    engine.undo = undo;
}

/// One thread's share of [`finish`].
struct Finish<'a> {
    undo: &'a Undo,
    source: (&'a [f32], &'a [f32], usize),
    raw: Option<&'a [f32]>,
    columns: Range<usize>,
    first: usize,
    into: &'a mut [f32],
    dropout: Option<Dropout>,
}

impl Kernel for Finish<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            undo,
            source: (g, x, stride),
            raw,
            columns,
            first,
            into,
            dropout,
        } = self;
        let count = columns.len();
        for (row, into) in into.chunks_exact_mut(count).enumerate() {
            let p = first + row;
            let ahead = (p + AHEAD) * stride + columns.start;
            for c in [0, count - 1] {
                simd.prefetch(g.as_ptr().wrapping_add(ahead + c));
                simd.prefetch(x.as_ptr().wrapping_add(ahead + c));
            }
            let (g, x) = (
                &g[p * stride..][columns.clone()],
                &x[p * stride..][columns.clone()],
            );
            undo.pixel(simd, g, x, into);
            if let Some(raw) = raw {
                let raw = &raw[p * stride..][columns.clone()];
                into.iter_mut()
                    .zip(raw)
                    .for_each(|(into, raw)| *into += raw);
            }
            if let Some(dropout) = dropout {
                dropout.apply(p * count, into);
            }
        }
    }
}

/// Turns the masked gradient of bottleneck maps, in place, into the gradient of the 1x1
/// convolution's output.
pub(crate) fn undo_norm(
    engine: &mut Engine,
    dy: &mut [f32],
    y: &[f32],
    (statistics, gamma): (&Statistics, &[f32]),
    sums: &GradientSums,
    dropout: Option<Dropout>,
) {
    let maps = gamma.len();
    let level = engine.level;
    let pixels = dy.len() / maps;
    let mut undo = std::mem::take(&mut engine.undo);
    undo.set(statistics, 0..maps, Some(gamma), sums, pixels);
    engine.over_rows(dy, maps, pixels, |share| {
        level.run(UndoNorm {
            undo: &undo,
            maps,
            y,
            first: share.rows.start,
            dy: share.values,
            dropout,
        });
    });
    engine.undo = undo;
}

/// One thread's share of [`undo_norm`].
struct UndoNorm<'a> {
    undo: &'a Undo,
    maps: usize,
    y: &'a [f32],
    first: usize,
    dy: &'a mut [f32],
    dropout: Option<Dropout>,
}

impl Kernel for UndoNorm<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            undo,
            maps,
            y,
            first,
            dy,
            dropout,
        } = self;
        let rows = dy
            .chunks_exact_mut(maps)
            .zip(y[first * maps..].chunks_exact(maps));
        for (row, (dy, y)) in rows.enumerate() {
            undo.pixel_in_place(simd, dy, y);
            if let Some(dropout) = dropout {
                dropout.apply((first + row) * maps, dy);
            }
        }
    }
}

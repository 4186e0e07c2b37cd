//! Undoes the normalisation of a whole buffer.

use std::ops::Range;

use crate::engine::Engine;
use crate::kernel::dropout::Dropout;
use crate::kernel::normal::{GradientSums, Statistics, Undo};
use crate::kernel::simd::{Kernel, Simd};

/// How many rows ahead values are prefetched: rows are far apart.
const AHEAD: usize = 16;

/// The input of the work that remains after all consumers of some channels.
#[derive(Clone)]
pub struct Source<'a> {
    /// The gradient after the normalisation, and the maps: rows of `stride`.
    pub g: &'a [f32],
    pub x: &'a [f32],
    pub stride: usize,
    /// The channels.
    pub columns: Range<usize>,
    pub statistics: &'a Statistics,
    pub sums: &'a GradientSums,
    /// The gradient from consumers that do not normalise, if there are any: rows of `stride`.
    pub raw: Option<&'a [f32]>,
    /// The dropout that the maps had.
    pub dropout: Option<Dropout>,
}

/// Undoes the normalisation of some channels, after all their consumers. Writes their gradient,
/// plus the `raw` gradient, to `into` (pixels x columns), with dropout's mask if the maps had one.
pub fn finish(engine: &mut Engine, undo: &mut Undo, source: Source<'_>, into: &mut [f32]) {
    let count = source.columns.len();
    let pixels = into.len() / count;
    let level = engine.level;
    let columns = source.columns.clone();
    undo.set(source.statistics, columns, None, source.sums, pixels);
    let (undo, source) = (&*undo, &source);
    engine.over_rows(into, count, pixels, |share| {
        level.run(Finish {
            undo,
            source,
            first: share.rows.start,
            into: share.values,
        });
    });
}

/// One thread's share of [`finish`].
struct Finish<'a> {
    undo: &'a Undo,
    source: &'a Source<'a>,
    first: usize,
    into: &'a mut [f32],
}

impl Kernel for Finish<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            undo,
            source,
            first,
            into,
        } = self;
        let Source {
            g,
            x,
            stride,
            raw,
            dropout,
            ..
        } = *source;
        let columns = &source.columns;
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

/// Bottleneck maps in the backward pass: what is needed to undo their BN.
pub struct Narrow<'a> {
    pub y: &'a [f32],
    pub statistics: &'a Statistics,
    pub gamma: &'a [f32],
    pub sums: &'a GradientSums,
    /// The dropout that the maps had.
    pub dropout: Option<Dropout>,
}

/// Turns the masked gradient of bottleneck maps, in place, into the gradient of the 1x1
/// convolution's output.
pub fn undo_norm(engine: &mut Engine, undo: &mut Undo, maps: &Narrow<'_>, dy: &mut [f32]) {
    let Narrow {
        y,
        statistics,
        gamma,
        sums,
        dropout,
    } = *maps;
    let maps = gamma.len();
    let level = engine.level;
    let pixels = dy.len() / maps;
    undo.set(statistics, 0..maps, Some(gamma), sums, pixels);
    let undo = &*undo;
    engine.over_rows(dy, maps, pixels, |share| {
        level.run(UndoNorm {
            undo,
            maps,
            y,
            first: share.rows.start,
            dy: share.values,
            dropout,
        });
    });
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

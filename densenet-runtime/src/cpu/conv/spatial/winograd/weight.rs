//! Weights on their way to transformed patches, and their gradients on the way back.

use std::ops::Range;

use crate::cpu::engine::{Engine, Parts, Scratch, need, need_zeros, padded, split_rows};
use crate::cpu::kernel::product::{Form, Panels};
use crate::cpu::kernel::simd::{Kernel, Simd};
use crate::cpu::kernel::winograd::{PLACES, of_kernels, to_kernels};

/// The most lanes of a vector.
const LANES: usize = 16;

/// See [`super::super::pack_forward`]: one packed matrix (channels x maps) for each place.
pub(in crate::cpu::conv::spatial) fn pack_forward(
    engine: &mut Engine,
    weight: &[f32],
    maps: usize,
    channels: usize,
) {
    let panels = Panels {
        depth: channels,
        columns: maps,
        form: Form::Plain,
    };
    pack(engine, panels, weight, |c, m| m * channels + c, false);
}

/// See [`super::super::pack_backward`]: one packed matrix (maps x channels) for each place, the
/// kernels turned by 180 degrees.
pub(in crate::cpu::conv::spatial) fn pack_backward(
    engine: &mut Engine,
    weight: &[f32],
    maps: usize,
    channels: usize,
) {
    let panels = Panels {
        depth: maps,
        columns: channels,
        form: Form::Plain,
    };
    pack(engine, panels, weight, |m, c| m * channels + c, true);
}

/// Packs kernels, transformed; `at(row, column)` is the number of a kernel. The threads share
/// the places.
fn pack(
    engine: &mut Engine,
    panels: Panels,
    weight: &[f32],
    at: impl Fn(usize, usize) -> usize + Sync,
    turned: bool,
) {
    let level = engine.level;
    let len = panels.len(level.lanes());
    let mut packed = std::mem::take(&mut engine.packed);
    engine.over_rows(need(&mut packed, PLACES * len), len, PLACES, |share| {
        level.run(Pack {
            panels,
            kernels: weight.as_chunks().0,
            at: &at,
            turned,
            places: share.rows,
            into: share.values,
            scratch: share.scratch,
        });
    });
    engine.packed = packed;
}

/// One thread's share of [`pack`].
struct Pack<'a, F> {
    panels: Panels,
    kernels: &'a [[f32; 9]],
    at: &'a F,
    turned: bool,
    places: Range<usize>,
    into: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl<F: Fn(usize, usize) -> usize> Kernel for Pack<'_, F> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            panels,
            kernels,
            at,
            turned,
            places,
            into,
            scratch,
        } = self;
        let len = panels.len(S::LANES);
        let width = panels.vectors(S::LANES) * S::LANES;
        // One row's kernels, tap by tap.
        let taps = need_zeros(&mut scratch.tile, 9 * width);
        for row in 0..panels.depth {
            for column in 0..panels.columns {
                let kernel = &kernels[at(row, column)];
                for (tap, line) in taps.chunks_exact_mut(width).enumerate() {
                    line[column] = if turned { kernel[8 - tap] } else { kernel[tap] };
                }
            }
            for vector in 0..panels.vectors(S::LANES) {
                let line = |tap: usize| &taps[tap * width + vector * S::LANES..][..S::LANES];
                // SAFETY: a line holds the lanes of a vector.
                let tap = |tap: usize| unsafe { simd.load(line(tap).as_ptr()) };
                let transformed = of_kernels(
                    simd,
                    [
                        [tap(0), tap(1), tap(2)],
                        [tap(3), tap(4), tap(5)],
                        [tap(6), tap(7), tap(8)],
                    ],
                );
                let start = panels.at(S::LANES, row, vector);
                for (matrix, place) in into.chunks_exact_mut(len).zip(places.clone()) {
                    let into = &mut matrix[start..start + S::LANES];
                    // SAFETY: the slice has the lanes of a vector.
                    unsafe { simd.store(into.as_mut_ptr(), transformed[place / 4][place % 4]) };
                }
            }
        }
    }
}

/// See [`super::super::add_weight`].
pub(in crate::cpu::conv::spatial) fn add_weight(
    engine: &mut Engine,
    gradient: &mut [f32],
    maps: usize,
    channels: usize,
) {
    let level = engine.level;
    let shares = engine.shares(maps);
    let scratch = &engine.scratch[..];
    let mut parts: Parts<_> = shares
        .iter()
        .cloned()
        .zip(split_rows(gradient, 9 * channels, &shares))
        .collect();
    engine.team.each(&mut parts, |_, (own, gradient)| {
        level.run(AddWeight {
            scratch,
            own: own.clone(),
            maps,
            channels,
            gradient,
        });
    });
}

/// One thread's share of [`add_weight`].
struct AddWeight<'a> {
    scratch: &'a [Scratch],
    own: Range<usize>,
    maps: usize,
    channels: usize,
    gradient: &'a mut [f32],
}

impl Kernel for AddWeight<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            scratch,
            own,
            maps,
            channels,
            gradient,
        } = self;
        let share = padded(channels);
        for (m, gradient) in own.zip(gradient.chunks_exact_mut(9 * channels)) {
            let parts = gradient.chunks_mut(9 * S::LANES).enumerate();
            for (vector, gradient) in parts {
                let mut sums = [[simd.zero(); 4]; 4];
                for scratch in scratch {
                    for (row, sums) in sums.iter_mut().enumerate() {
                        for (column, sum) in sums.iter_mut().enumerate() {
                            let place = 4 * row + column;
                            let at = (place * maps + m) * share + vector * S::LANES;
                            let values = &scratch.weight[at..at + S::LANES];
                            // SAFETY: the slice has the lanes of a vector.
                            *sum = simd.add(*sum, unsafe { simd.load(values.as_ptr()) });
                        }
                    }
                }
                for (row, taps) in to_kernels(simd, sums).into_iter().enumerate() {
                    for (column, values) in taps.into_iter().enumerate() {
                        let mut tap = [0.0; LANES];
                        // SAFETY: an array holds at least the lanes of a vector.
                        unsafe { simd.store(tap.as_mut_ptr(), values) };
                        let into = gradient[3 * row + column..].iter_mut().step_by(9);
                        into.zip(tap).for_each(|(into, value)| *into += value);
                    }
                }
            }
        }
    }
}

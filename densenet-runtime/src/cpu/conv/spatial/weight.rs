//! Weights on their way to transformed patches, and their gradients on the way back.

use std::ops::Range;

use crate::cpu::engine::{Engine, Parts, Scratch, need, need_zeros, padded, split_rows};
use crate::cpu::kernel::pairs;
use crate::cpu::kernel::product::{Form, Panels};
use crate::cpu::kernel::simd::{Kernel, Simd};
use crate::cpu::kernel::winograd::{PLACES, of_kernels, to_kernels};

/// The most lanes of a vector.
const LANES: usize = 16;

/// Packs a weight (maps x channels x 3 x 3) for [`super::forward`] into `engine.packed`: one
/// matrix (channels x maps) for each place.
pub(crate) fn pack_forward(engine: &mut Engine, weight: &[f32], maps: usize, channels: usize) {
    let at = |c, m| m * channels + c;
    pack(engine, (channels, maps), weight, at, false);
}

/// Packs a weight (maps x channels x 3 x 3) for [`super::backward`] into `engine.packed`: one
/// matrix (maps x channels) for each place, the kernels turned by 180 degrees.
pub(crate) fn pack_backward(engine: &mut Engine, weight: &[f32], maps: usize, channels: usize) {
    let at = |m, c| m * channels + c;
    pack(engine, (maps, channels), weight, at, true);
}

/// Packs kernels, transformed; `at(row, column)` is the number of a kernel. The threads share
/// the places.
fn pack(
    engine: &mut Engine,
    (rows, columns): (usize, usize),
    weight: &[f32],
    at: impl Fn(usize, usize) -> usize + Sync,
    turned: bool,
) {
    let level = engine.level;
    let panels = Panels {
        depth: engine.form.whole(rows),
        columns,
        form: engine.form,
    };
    let len = panels.len(level.lanes());
    let mut packed = std::mem::take(&mut engine.packed);
    engine.over_rows(need(&mut packed, PLACES * len), len, PLACES, |share| {
        level.run(Pack {
            panels,
            rows,
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
    /// Rows, without a last one of zeros.
    rows: usize,
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
            rows,
            kernels,
            at,
            turned,
            places,
            into,
            scratch,
        } = self;
        let len = panels.len(S::LANES);
        let width = panels.vectors(S::LANES) * S::LANES;
        let unit = panels.form.unit();
        // The kernels of the rows in an element, tap by tap.
        let taps = need_zeros(&mut scratch.tile, 2 * 9 * width);
        for line in 0..panels.depth / unit {
            for (r, taps) in taps.chunks_exact_mut(9 * width).enumerate().take(unit) {
                let row = line * unit + r;
                if row == rows {
                    taps.fill(0.0);
                    continue;
                }
                for column in 0..panels.columns {
                    let kernel = &kernels[at(row, column)];
                    for (tap, line) in taps.chunks_exact_mut(width).enumerate() {
                        line[column] = if turned { kernel[8 - tap] } else { kernel[tap] };
                    }
                }
            }
            let (first, second) = taps.split_at(9 * width);
            for vector in 0..panels.vectors(S::LANES) {
                let column = vector * S::LANES;
                let start = panels.at(S::LANES, line, vector);
                let values = transform(simd, first, width, column);
                for (matrix, place) in into.chunks_exact_mut(len).zip(places.clone()) {
                    write(simd, values[place / 4][place % 4], &mut matrix[start..]);
                }
                match panels.form {
                    Form::Plain => {}
                    Form::Rounded => {
                        for matrix in into.chunks_exact_mut(len) {
                            pairs::round_all(&mut matrix[start..start + S::LANES]);
                        }
                    }
                    Form::Pairs => {
                        let values = transform(simd, second, width, column);
                        for (matrix, place) in into.chunks_exact_mut(len).zip(places.clone()) {
                            let mut others = [0.0; LANES];
                            write(simd, values[place / 4][place % 4], &mut others);
                            for (into, other) in matrix[start..].iter_mut().zip(others) {
                                *into = pairs::pair(*into, other);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Transforms the kernels of a vector of columns; `taps` are rows of `width`.
#[inline(always)]
fn transform<S: Simd>(simd: S, taps: &[f32], width: usize, column: usize) -> [[S::Vector; 4]; 4] {
    let mut kernels = [[simd.zero(); 3]; 3];
    for (row, kernels) in kernels.iter_mut().enumerate() {
        for (x, kernel) in kernels.iter_mut().enumerate() {
            let line = &taps[(3 * row + x) * width + column..][..S::LANES];
            // SAFETY: the slice has the lanes of a vector.
            *kernel = unsafe { simd.load(line.as_ptr()) };
        }
    }
    of_kernels(simd, kernels)
}

/// Writes a vector.
#[inline(always)]
fn write<S: Simd>(simd: S, vector: S::Vector, into: &mut [f32]) {
    let into = &mut into[..S::LANES];
    // SAFETY: the slice has the lanes of a vector.
    unsafe { simd.store(into.as_mut_ptr(), vector) };
}

/// Adds the threads' shares of a weight's gradient into `gradient` (maps x channels x 3 x 3).
pub(crate) fn add_weight(engine: &mut Engine, gradient: &mut [f32], maps: usize, channels: usize) {
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
                        write(simd, values, &mut tap);
                        let into = gradient[3 * row + column..].iter_mut().step_by(9);
                        into.zip(tap).for_each(|(into, value)| *into += value);
                    }
                }
            }
        }
    }
}

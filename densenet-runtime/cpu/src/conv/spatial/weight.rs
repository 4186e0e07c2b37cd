//! The transform of weights, and of their gradients back.

use std::ops::Range;

use crate::engine::{Engine, Parts, Scratch, padded, split_rows};
use crate::kernel::pairs;
use crate::kernel::product::{Form, Panels};
use crate::kernel::simd::{Kernel, Simd};
use crate::kernel::transpose::{LANES, transpose};
use crate::kernel::winograd::{PLACES, of_kernels, to_kernels};

/// Packs a weight (maps x channels x 3 x 3) for [`forward`](super::forward()) into `engine.packed`:
/// one matrix (channels x maps) for each place.
pub fn pack_forward(engine: &mut Engine, weight: &[f32], maps: usize, channels: usize) {
    let kernels = Kernels {
        values: weight.as_chunks().0,
        rows: (channels, 1),
        columns: (maps, channels),
        turned: false,
    };
    pack(engine, kernels);
}

/// Packs a weight (maps x channels x 3 x 3) for [`backward`](super::backward()) into `engine.packed`: one
/// matrix (maps x channels) for each place, the kernels turned by 180 degrees.
pub fn pack_backward(engine: &mut Engine, weight: &[f32], maps: usize, channels: usize) {
    let kernels = Kernels {
        values: weight.as_chunks().0,
        rows: (maps, channels),
        columns: (channels, 1),
        turned: true,
    };
    pack(engine, kernels);
}

/// Packs transformed kernels. The threads divide the places.
fn pack(engine: &mut Engine, kernels: Kernels<'_>) {
    let level = engine.level;
    let panels = Panels {
        depth: engine.form.whole(kernels.rows.0),
        columns: kernels.columns.0,
        form: engine.form,
    };
    let len = panels.len(level.lanes());
    engine.pack_rows(
        PLACES,
        |place| place * len,
        |places, into| {
            level.run(Pack {
                panels,
                kernels,
                places,
                into,
            });
        },
    );
}

/// A matrix of kernels.
#[derive(Clone, Copy)]
struct Kernels<'a> {
    values: &'a [[f32; 9]],
    /// The number of rows, and their stride in `values`.
    rows: (usize, usize),
    /// The number of columns, and their stride in `values`.
    columns: (usize, usize),
    /// Whether the kernels are turned by 180 degrees.
    turned: bool,
}

impl Kernels<'_> {
    /// The transforms of a vector of kernels, in one row from a column on. Beyond the last row and
    /// column they are zeros.
    #[inline(always)]
    fn transformed<S: Simd>(self, simd: S, row: usize, column: usize) -> [[S::Vector; 4]; 4] {
        let (count, stride) = self.columns;
        let count = if row < self.rows.0 {
            (count - column).min(S::LANES)
        } else {
            0
        };
        let first = row * self.rows.1 + column * stride;
        let mut kernels = [[simd.zero(); 3]; 3];
        let taps = kernels.as_flattened_mut();
        for start in (0..9).step_by(S::LANES) {
            let end = (start + S::LANES).min(9);
            let mut block = [simd.zero(); LANES];
            for (lane, taps) in block.iter_mut().enumerate().take(count) {
                let kernel = &self.values[first + lane * stride][start..end];
                // SAFETY: only values of the slice are read.
                *taps = unsafe { simd.load_part(kernel.as_ptr(), kernel.len()) };
            }
            let block = transpose(simd, block);
            taps[start..end].copy_from_slice(&block[..end - start]);
        }
        if self.turned {
            taps.reverse();
        }
        of_kernels(simd, kernels)
    }
}

/// One thread's share of [`pack`].
struct Pack<'a> {
    panels: Panels,
    kernels: Kernels<'a>,
    places: Range<usize>,
    into: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            panels,
            kernels,
            places,
            into,
        } = self;
        let len = panels.len(S::LANES);
        let unit = panels.form.unit();
        for line in 0..panels.depth / unit {
            for vector in 0..panels.vectors(S::LANES) {
                let column = vector * S::LANES;
                let start = panels.at(S::LANES, line, vector);
                let values = kernels.transformed(simd, line * unit, column);
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
                    Form::Pairs(_) => {
                        let values = kernels.transformed(simd, line * unit + 1, column);
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

/// Writes a vector.
#[inline(always)]
fn write<S: Simd>(simd: S, vector: S::Vector, into: &mut [f32]) {
    let into = &mut into[..S::LANES];
    // SAFETY: the slice has the lanes of a vector.
    unsafe { simd.store(into.as_mut_ptr(), vector) };
}

/// Adds the threads' shares of a weight's gradient to `gradient` (maps x channels x 3 x 3).
pub fn add_weight(engine: &mut Engine, gradient: &mut [f32], maps: usize, channels: usize) {
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
                let taps = to_kernels(simd, sums);
                for (n, taps) in taps.as_flattened().chunks(S::LANES).enumerate() {
                    let mut block = [simd.zero(); LANES];
                    block[..taps.len()].copy_from_slice(taps);
                    let kernels = transpose(simd, block);
                    for (into, kernel) in gradient.chunks_exact_mut(9).zip(kernels) {
                        let into = &mut into[n * S::LANES..][..taps.len()];
                        // SAFETY: only values of the slice are read and written.
                        unsafe {
                            let before = simd.load_part(into.as_ptr(), taps.len());
                            let sum = simd.add(before, kernel);
                            simd.store_part(into.as_mut_ptr(), sum, taps.len());
                        }
                    }
                }
            }
        }
    }
}

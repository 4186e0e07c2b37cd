//! The epilogue of a convolution: a tile of its result is measured and written to its destination.
//!
//! Channels are the outer loop, two vectors at a time, so that sums stay in registers. The variance
//! is that of deviations from the tile's own mean, which takes two passes over a tile in the cache.

use super::bounds::span;
use super::normal::Moments;
use super::pullback::TileMut;
use super::simd::{Kernel, Simd};

/// The pixels of a tile that count: `runs` runs of `len` rows of `stride`. Each run starts `pitch`
/// rows after the start of the previous one.
#[derive(Clone, Copy)]
pub struct Runs<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    pub runs: usize,
    pub len: usize,
    pub pitch: usize,
}

impl<'a> Runs<'a> {
    /// Rows without gaps.
    pub fn rows(values: &'a [f32], stride: usize, count: usize) -> Self {
        Self {
            values,
            stride,
            runs: 1,
            len: count,
            pitch: count,
        }
    }
}

/// Adds the first `columns` channels of a tile to the moments, and copies them to the target row by
/// row. Either may be absent.
///
/// # Panics
/// If a slice is shorter than the rows and channels require, or the moments have a different number
/// of channels.
#[inline(always)]
pub fn emit<S: Simd>(
    simd: S,
    tile: Runs<'_>,
    columns: usize,
    moments: Option<&mut Moments>,
    target: Option<TileMut<'_>>,
) {
    let Runs {
        values,
        stride,
        runs,
        len,
        pitch,
    } = tile;
    let count = runs.saturating_mul(len);
    if count == 0 || columns == 0 {
        return;
    }
    assert!(span(span(runs, pitch, len), stride, columns) <= values.len());
    let (into, into_stride) = match target {
        Some(TileMut { values, stride }) => {
            assert!(span(count, stride, columns) <= values.len());
            (values.as_mut_ptr(), stride)
        }
        None => (std::ptr::null_mut(), 0),
    };
    let mut checked = Checked {
        from: values.as_ptr(),
        stride,
        runs,
        len,
        pitch,
        columns,
        into,
        into_stride,
        sums: [std::ptr::null_mut(); 2],
    };
    match moments {
        Some(moments) => {
            let (mean, squares) = moments.tile();
            assert!(mean.len() == columns && squares.len() == columns);
            checked.sums = [mean.as_mut_ptr(), squares.as_mut_ptr()];
            simd.outline(checked);
            moments.add_tile(count);
        }
        None => simd.outline(checked),
    }
}

/// A tile whose bounds were checked.
struct Checked {
    from: *const f32,
    stride: usize,
    runs: usize,
    len: usize,
    pitch: usize,
    columns: usize,
    /// Null if nothing is copied.
    into: *mut f32,
    into_stride: usize,
    /// Mean and sum of squared deviations; null if nothing is measured.
    sums: [*mut f32; 2],
}

impl Kernel for Checked {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let lanes = S::LANES;
        let mut c = 0;
        // SAFETY: only `emit` makes this, with pointers that are null or valid for all rows and
        // columns; the columns of each call are below `self.columns`.
        unsafe {
            while c + 2 * lanes <= self.columns {
                self.columns::<S, 2>(simd, c, lanes);
                c += 2 * lanes;
            }
            while c < self.columns {
                self.columns::<S, 1>(simd, c, lanes.min(self.columns - c));
                c += lanes;
            }
        }
    }
}

impl Checked {
    /// `W` whole vectors of columns from `c` on, or `count` lanes of one.
    ///
    /// # Safety
    /// The pointers are null or valid for all rows and these columns.
    #[inline(always)]
    unsafe fn columns<S: Simd, const W: usize>(&self, simd: S, c: usize, count: usize) {
        let at = |j: usize| c + j * S::LANES;
        let mut mean = [simd.zero(); W];
        // SAFETY: the caller's promise.
        unsafe {
            if !self.sums[0].is_null() {
                for run in 0..self.runs {
                    for x in 0..self.len {
                        let from = self.from.add((run * self.pitch + x) * self.stride);
                        for (j, mean) in mean.iter_mut().enumerate() {
                            *mean = simd.add(*mean, simd.load_part(from.add(at(j)), count));
                        }
                    }
                }
                let share = simd.splat(&(1.0 / (self.runs * self.len) as f32));
                for mean in &mut mean {
                    *mean = simd.fma(*mean, share, simd.zero());
                }
            }
            let mut squares = [simd.zero(); W];
            let mut into = self.into;
            for run in 0..self.runs {
                for x in 0..self.len {
                    let from = self.from.add((run * self.pitch + x) * self.stride);
                    for j in 0..W {
                        let value = simd.load_part(from.add(at(j)), count);
                        let off = simd.sub(value, mean[j]);
                        squares[j] = simd.fma(off, off, squares[j]);
                        if !into.is_null() {
                            simd.store_part(into.add(at(j)), value, count);
                        }
                    }
                    if !into.is_null() {
                        into = into.wrapping_add(self.into_stride);
                    }
                }
            }
            if !self.sums[0].is_null() {
                for j in 0..W {
                    simd.store_part(self.sums[0].add(at(j)), mean[j], count);
                    simd.store_part(self.sums[1].add(at(j)), squares[j], count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::normal::Statistics;
    use super::super::simd::Level;
    use super::*;

    struct Case {
        columns: usize,
        copy: bool,
    }

    impl Kernel for Case {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let Self { columns, copy } = self;
            let (runs, len, pitch, stride) = (3, 5, 6, columns + 2);
            let values: Vec<f32> = (0..runs * pitch * stride)
                .map(|i| ((i * 37) % 23) as f32 + 100.0)
                .collect();
            let into_stride = columns + 3;
            let mut into = vec![-1.0; runs * len * into_stride];
            let mut moments = Moments::default();
            moments.reset(columns);
            let tile = Runs {
                values: &values,
                stride,
                runs,
                len,
                pitch,
            };
            let target = copy.then_some(TileMut {
                values: &mut into,
                stride: into_stride,
            });
            emit(simd, tile, columns, Some(&mut moments), target);
            let mut statistics = Statistics::new(columns);
            statistics.merge(0, [&moments].into_iter());
            for c in 0..columns {
                let column: Vec<f32> = (0..runs)
                    .flat_map(|run| (0..len).map(move |x| (run * pitch + x) * stride + c))
                    .map(|at| values[at])
                    .collect();
                let n = column.len() as f32;
                let mean = column.iter().sum::<f32>() / n;
                let variance = column.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / n;
                assert!((statistics.mean[c] - mean).abs() < 1e-4);
                assert!((statistics.variance[c] / variance - 1.0).abs() < 1e-5);
                for (row, value) in column.into_iter().enumerate() {
                    let expected = if copy { value } else { -1.0 };
                    assert_eq!(into[row * into_stride + c], expected);
                }
            }
            for row in into.chunks(into_stride) {
                assert_eq!(row[columns..], [-1.0; 3]);
            }
        }
    }

    #[test]
    fn a_tile_is_measured_and_copied_at_every_level() {
        for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
            for columns in [1, 7, 12, 16, 32, 40, 70] {
                for copy in [false, true] {
                    level.run(Case { columns, copy });
                }
            }
        }
    }

    /// A tile or a target whose shapes match its short slice only if the arithmetic wraps.
    struct Wrapping {
        len: usize,
        stride: usize,
        into_stride: usize,
    }

    impl Kernel for Wrapping {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let tile = Runs::rows(&[1.0; 64], self.stride, self.len);
            let into = TileMut {
                values: &mut [0.0; 64],
                stride: self.into_stride,
            };
            emit(simd, tile, 1, None, Some(into));
        }
    }

    #[test]
    fn shapes_that_wrap_are_refused() {
        for (len, stride, into_stride) in [
            ((1 << 63) + 1, 2, 0),
            (3, 1 << 63, 1),
            (3, 1, 1 << 63),
            ((1 << 63) + 1, 0, 2),
        ] {
            let run = || {
                Level::detect().run(Wrapping {
                    len,
                    stride,
                    into_stride,
                });
            };
            assert!(std::panic::catch_unwind(run).is_err(), "{len} {stride}");
        }
    }
}

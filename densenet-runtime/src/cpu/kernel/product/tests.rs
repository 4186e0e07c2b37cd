use super::super::simd::{Kernel, Level, Simd};
use super::*;

const LEVELS: [Level; 3] = [Level::Baseline, Level::Avx2, Level::Avx512];

/// Small integers, so that sums are exact in any order.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 31 + seed * 17) % 13) as f32 - 6.0)
        .collect()
}

struct Multiply<'a> {
    rows: usize,
    taps: &'a [usize],
    channels: usize,
    columns: usize,
    add: bool,
}

impl Kernel for Multiply<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            rows,
            taps,
            channels,
            columns,
            add,
        } = self;
        let stride = channels + 3;
        let a = numbers(rows * stride + 2 * stride + 5, 1);
        let panels = Panels {
            depth: taps.len() * channels,
            columns,
            form: Form::Plain,
        };
        let weight = numbers(panels.depth * columns, 2);
        let mut b = vec![f32::NAN; panels.len(S::LANES)];
        panels.pack(
            S::LANES,
            0..panels.lines(S::LANES),
            &mut b,
            |row, column| weight[row * columns + column],
        );
        let out_stride = panels.vectors(S::LANES) * S::LANES;
        let mut out = vec![1.0; rows * out_stride];
        let left = Rows {
            values: &a,
            stride,
            count: rows,
        };
        let depth = Depth {
            taps,
            channels,
            first: 0,
        };
        multiply(simd, left, depth, panels, &b, &mut out, out_stride, add);
        for row in 0..rows {
            for column in 0..columns {
                let mut expected = if add { 1.0 } else { 0.0 };
                for (t, tap) in taps.iter().enumerate() {
                    for k in 0..channels {
                        expected += a[row * stride + tap + k]
                            * weight[(t * channels + k) * columns + column];
                    }
                }
                assert_eq!(out[row * out_stride + column], expected, "{row} {column}");
            }
        }
    }
}

#[test]
fn multiply_is_the_naive_sum_at_every_level_and_shape() {
    for level in LEVELS {
        for rows in [1, 2, 13, 14, 15, 29] {
            for columns in [1, 12, 16, 17, 32, 40, 70] {
                for (taps, channels) in [(&[0][..], 7), (&[0, 4, 9][..], 5)] {
                    for add in [false, true] {
                        level.run(Multiply {
                            rows,
                            taps,
                            channels,
                            columns,
                            add,
                        });
                    }
                }
            }
        }
    }
}

struct Accumulate {
    rows: usize,
    columns: usize,
    width: usize,
}

impl Kernel for Accumulate {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            rows,
            columns,
            width,
        } = self;
        let stride = width.next_multiple_of(S::LANES);
        let d = numbers(rows * columns, 3);
        let a = numbers(rows * stride, 4);
        let mut out = vec![1.0; columns * stride];
        let left = Rows {
            values: &d,
            stride: columns,
            count: rows,
        };
        let right = Rows {
            values: &a,
            stride,
            count: rows,
        };
        accumulate(
            simd,
            Form::Plain,
            left,
            columns,
            right,
            width,
            &mut out,
            stride,
        );
        for i in 0..columns {
            for j in 0..width {
                let sum: f32 = (0..rows)
                    .map(|r| d[r * columns + i] * a[r * stride + j])
                    .sum();
                assert_eq!(out[i * stride + j], 1.0 + sum, "{i} {j}");
            }
        }
    }
}

#[test]
fn accumulate_is_the_naive_sum_at_every_level_and_shape() {
    for level in LEVELS {
        for rows in [1, 5, 20] {
            for columns in [1, 4, 13, 14, 15, 32] {
                for width in [1, 12, 16, 31, 48] {
                    level.run(Accumulate {
                        rows,
                        columns,
                        width,
                    });
                }
            }
        }
    }
}

#[test]
fn blocks_cover_everything_evenly() {
    for n in 0..60 {
        let mut end = 0;
        for (start, len) in blocks(n, 14) {
            assert_eq!(start, end);
            assert!((1..=14).contains(&len));
            end += len;
        }
        assert_eq!(end, n);
    }
}

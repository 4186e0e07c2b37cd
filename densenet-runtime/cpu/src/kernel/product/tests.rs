use super::super::pairs;
use super::super::simd::{Kernel, Level, Simd};
use super::*;
use crate::memory::Memory;

const LEVELS: [Level; 3] = [Level::Baseline, Level::Avx2, Level::Avx512];

/// Small integers, so that sums are exact in any order.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 31 + seed * 17) % 13) as f32 - 6.0)
        .collect()
}

struct Multiply {
    rows: usize,
    first: usize,
    channels: usize,
    columns: usize,
    add: bool,
}

impl Kernel for Multiply {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            rows,
            first,
            channels,
            columns,
            add,
        } = self;
        let stride = channels + 3;
        let a = numbers(rows * stride, 1);
        let panels = Panels {
            depth: first + channels + 2,
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
        let depth = Contraction { channels, first };
        multiply(
            simd,
            left,
            depth,
            panels,
            &b,
            Out {
                values: &mut out,
                stride: out_stride,
                add,
            },
        );
        for row in 0..rows {
            for column in 0..columns {
                let mut expected = if add { 1.0 } else { 0.0 };
                for k in 0..channels {
                    expected += a[row * stride + k] * weight[(first + k) * columns + column];
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
                for (first, channels) in [(0, 7), (3, 5)] {
                    for add in [false, true] {
                        level.run(Multiply {
                            rows,
                            first,
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
    add: bool,
}

impl Kernel for Accumulate {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            rows,
            columns,
            width,
            add,
        } = self;
        let stride = width.next_multiple_of(S::LANES);
        let d = numbers(rows * columns, 3);
        let a = numbers(rows * stride, 4);
        let before = if add { 1.0 } else { 0.0 };
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
            Out {
                values: &mut out,
                stride,
                add,
            },
        );
        for i in 0..columns {
            for j in 0..width {
                let sum: f32 = (0..rows)
                    .map(|r| d[r * columns + i] * a[r * stride + j])
                    .sum();
                assert_eq!(out[i * stride + j], before + sum, "{i} {j}");
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
                    for add in [false, true] {
                        level.run(Accumulate {
                            rows,
                            columns,
                            width,
                            add,
                        });
                    }
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

/// Products of pairs, of values that bfloat16 holds exactly.
struct Paired {
    form: Form,
    rows: usize,
    channels: usize,
    columns: usize,
}

impl Kernel for Paired {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            form,
            rows,
            channels,
            columns,
        } = self;
        let (a, weight) = (
            numbers(rows * channels, 1),
            numbers(2 * channels * columns, 2),
        );
        let [mut narrow, mut of_d, mut of_a] = [(); 3].map(|()| Memory::default());
        let all = Rows {
            values: &a,
            stride: channels,
            count: rows,
        };
        let panels = Panels {
            depth: 2 * channels,
            columns,
            form,
        };
        let mut b = vec![f32::NAN; panels.len(S::LANES)];
        let lines = 0..panels.lines(S::LANES);
        panels.pack(S::LANES, lines, &mut b, |row, column| {
            weight[row * columns + column]
        });
        let stride = panels.vectors(S::LANES) * S::LANES;
        let mut out = vec![f32::NAN; rows * stride];
        let left = pairs::of_columns(simd, form, all, &mut narrow);
        for first in [0, channels] {
            let depth = Contraction { channels, first };
            multiply(
                simd,
                left,
                depth,
                panels,
                &b,
                Out {
                    values: &mut out,
                    stride,
                    add: false,
                },
            );
            for row in 0..rows {
                for column in 0..columns {
                    let mut sum = 0.0;
                    for k in 0..channels {
                        let at = (first + k) * columns + column;
                        sum += a[row * channels + k] * weight[at];
                    }
                    assert_eq!(out[row * stride + column], sum, "{row} {column}");
                }
            }
        }

        // The gradient of a weight: pairs of rows; the last row may be alone.
        let width = columns.next_multiple_of(S::LANES);
        let (d, a) = (numbers(rows * channels, 3), numbers(rows * width, 4));
        let d_rows = Rows {
            values: &d,
            stride: channels,
            count: rows,
        };
        let a_rows = Rows {
            values: &a,
            stride: width,
            count: rows,
        };
        let left = pairs::of_rows(simd, form, d_rows, &mut of_d);
        let right = pairs::of_rows(simd, form, a_rows, &mut of_a);
        let mut out = vec![1.0; channels * width];
        accumulate(
            simd,
            form,
            left,
            channels,
            right,
            columns,
            Out {
                values: &mut out,
                stride: width,
                add: true,
            },
        );
        for i in 0..channels {
            for j in 0..columns {
                let products = (0..rows).map(|r| d[r * channels + i] * a[r * width + j]);
                assert_eq!(out[i * width + j], 1.0 + products.sum::<f32>(), "{i} {j}");
            }
        }
    }
}

#[test]
fn products_of_pairs_are_the_naive_sums_where_the_processor_has_them() {
    let Some(form) = Bf16::detect().map(Form::Pairs) else {
        return;
    };
    for rows in [1, 2, 13, 15, 28] {
        for channels in [2, 6, 16] {
            for columns in [1, 12, 16, 32, 48, 65] {
                Level::Avx512Bf16.run(Paired {
                    form,
                    rows,
                    channels,
                    columns,
                });
            }
        }
    }
}

/// Products whose shapes match their short slices only if the arithmetic wraps.
struct Wrapping(usize);

impl Kernel for Wrapping {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (a, b, mut out) = ([1.0; 64], [1.0; 64], [0.0; 64]);
        let rows = |count, stride| Rows {
            values: &a[..],
            stride,
            count,
        };
        let (huge, half) = ((1 << 63) + 1, 1 << 63);
        let wide = Panels {
            depth: 1,
            columns: 1,
            form: Form::Plain,
        };
        let depth = Contraction {
            channels: 1,
            first: 0,
        };
        let mut multiply = |left, depth, panels, stride| {
            multiply(
                simd,
                left,
                depth,
                panels,
                &b,
                Out {
                    values: &mut out,
                    stride,
                    add: false,
                },
            );
        };
        let plain = Form::Plain;
        match self.0 {
            0 => multiply(rows(huge, 2), depth, wide, 0),
            1 => multiply(rows(3, half), depth, wide, 16),
            2 => multiply(rows(huge, 0), depth, wide, 2),
            3 => {
                let first = usize::MAX;
                multiply(rows(1, 1), Contraction { first, ..depth }, wide, 16);
            }
            4 => {
                let depth = 1 << 60;
                let panels = Panels { depth, ..wide };
                multiply(
                    rows(1, 1),
                    Contraction {
                        channels: 1,
                        first: 0,
                    },
                    panels,
                    16,
                );
            }
            5 => accumulate(
                simd,
                plain,
                rows(huge, 2),
                1,
                rows(huge, 0),
                1,
                Out {
                    values: &mut [0.0; 64],
                    stride: 0,
                    add: false,
                },
            ),
            6 => accumulate(
                simd,
                plain,
                rows(1, 1),
                huge,
                rows(1, 1),
                1,
                Out {
                    values: &mut [0.0; 64],
                    stride: 2,
                    add: false,
                },
            ),
            _ => accumulate(
                simd,
                plain,
                rows(1, 0),
                1,
                rows(1, 0),
                usize::MAX,
                Out {
                    values: &mut [0.0; 64],
                    stride: 0,
                    add: false,
                },
            ),
        }
    }
}

#[test]
fn shapes_that_wrap_are_refused() {
    for case in 0..8 {
        for level in LEVELS {
            let run = || level.run(Wrapping(case));
            assert!(std::panic::catch_unwind(run).is_err(), "{case} {level:?}");
        }
    }
}

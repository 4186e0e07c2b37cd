//! Matrices in natural order, and how they become panels.

use std::ops::Range;

use super::pairs;
use super::product::{Form, Panels};
use super::simd::{Kernel, Simd};
use super::transpose::{LANES, transpose};

/// A matrix, by rows or by columns.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    /// The length of a row, or of a column.
    line: usize,
    by_columns: bool,
}

impl<'a> Matrix<'a> {
    /// Rows of `columns` values.
    pub fn of_rows(values: &'a [f32], columns: usize) -> Self {
        Self {
            values,
            line: columns,
            by_columns: false,
        }
    }

    /// Columns of `rows` values.
    pub fn of_columns(values: &'a [f32], rows: usize) -> Self {
        Self {
            values,
            line: rows,
            by_columns: true,
        }
    }

    /// Rows.
    fn rows(self) -> usize {
        if self.by_columns {
            self.line
        } else {
            self.values.len() / self.line
        }
    }

    /// Copies some rows of some columns into rows of `stride`, a multiple of the lanes. Zeros
    /// follow the last row.
    #[inline(always)]
    fn copy<S: Simd>(
        self,
        simd: S,
        rows: Range<usize>,
        columns: Range<usize>,
        into: &mut [f32],
        stride: usize,
    ) {
        let there = rows.len().min(self.rows().saturating_sub(rows.start));
        if self.by_columns {
            for (start, count) in strides(there, S::LANES) {
                for (first, lanes) in strides(columns.len(), S::LANES) {
                    let mut block = [simd.zero(); LANES];
                    for (c, vector) in block.iter_mut().enumerate().take(lanes) {
                        let column = columns.start + first + c;
                        let from = &self.values[column * self.line + rows.start + start..];
                        let from = &from[..count];
                        // SAFETY: no more than the slice has is read.
                        *vector = unsafe { simd.load_part(from.as_ptr(), count) };
                    }
                    let block = transpose(simd, block);
                    let into = into[start * stride..].chunks_exact_mut(stride).take(count);
                    for (into, row) in into.zip(block) {
                        let into = &mut into[first..first + S::LANES];
                        // SAFETY: the slice has the lanes of a vector.
                        unsafe { simd.store(into.as_mut_ptr(), row) };
                    }
                }
            }
        } else {
            let lines = rows.clone().zip(into.chunks_exact_mut(stride)).take(there);
            for (row, into) in lines {
                let from = &self.values[row * self.line + columns.start..][..columns.len()];
                into[..columns.len()].copy_from_slice(from);
            }
        }
        into[there * stride..rows.len() * stride].fill(0.0);
    }
}

/// Divides `n` items into steps of `step`: yields the start and the length of each. The last may be shorter.
#[inline(always)]
fn strides(n: usize, step: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n)
        .step_by(step)
        .map(move |start| (start, step.min(n - start)))
}

/// Lines of a panel that are packed at a time.
const LINES: usize = 16;
/// The most columns of a panel.
const COLUMNS: usize = 32;

/// Packs some lines of panels; `into` starts at the first of them.
pub struct Pack<'a> {
    pub panels: Panels,
    pub matrix: Matrix<'a>,
    pub lines: Range<usize>,
    pub into: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            panels,
            matrix,
            lines,
            mut into,
        } = self;
        let unit = panels.form.unit();
        let mut block = [0.0; 2 * LINES * COLUMNS];
        let mut line = lines.start;
        while line < lines.end {
            let place = panels.place(S::LANES, line);
            let count = LINES.min(lines.end - line).min(place.rows_left);
            let rows = place.row * unit..(place.row + count) * unit;
            let columns = place.column..panels.columns.min(place.column + place.width);
            let filled = columns.len();
            let (packed, rest) = into.split_at_mut(count * place.width);
            into = rest;
            match panels.form {
                Form::Plain | Form::Rounded => {
                    matrix.copy(simd, rows, columns, packed, place.width);
                }
                Form::Pairs(_) => {
                    matrix.copy(simd, rows, columns, &mut block, COLUMNS);
                    let pairs = block.chunks_exact(2 * COLUMNS);
                    for (packed, two) in packed.chunks_exact_mut(place.width).zip(pairs) {
                        let (first, second) = two.split_at(COLUMNS);
                        for ((into, first), second) in packed.iter_mut().zip(first).zip(second) {
                            *into = pairs::pair(*first, *second);
                        }
                    }
                }
            }
            if panels.form == Form::Rounded {
                pairs::round_all(packed);
            }
            if filled < place.width {
                for packed in packed.chunks_exact_mut(place.width) {
                    packed[filled..].fill(0.0);
                }
            }
            line += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Bf16, Level};
    use super::*;

    #[test]
    fn a_matrix_is_packed_value_by_value() {
        for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
            let pairs = Bf16::detect().map(Form::Pairs);
            for form in [Form::Plain, Form::Rounded].into_iter().chain(pairs) {
                for (rows, columns) in [(1, 1), (7, 33), (40, 12), (33, 70), (16, 64)] {
                    let panels = Panels {
                        depth: form.whole(rows),
                        columns,
                        form,
                    };
                    let lanes = level.at_most().lanes();
                    let at = |row: usize, column: usize| {
                        if row < rows {
                            (row * 100 + column) as f32 * 1.001
                        } else {
                            0.0
                        }
                    };
                    let mut expected = vec![f32::NAN; panels.len(lanes)];
                    let lines = panels.lines(lanes);
                    panels.pack(lanes, 0..lines, &mut expected, at);
                    let by_rows: Vec<f32> = (0..rows)
                        .flat_map(|row| (0..columns).map(move |column| at(row, column)))
                        .collect();
                    let by_columns: Vec<f32> = (0..columns)
                        .flat_map(|column| (0..rows).map(move |row| at(row, column)))
                        .collect();
                    for matrix in [
                        Matrix::of_rows(&by_rows, columns),
                        Matrix::of_columns(&by_columns, rows),
                    ] {
                        let mut found = vec![f32::NAN; panels.len(lanes)];
                        let middle = panels.line(lanes, lines / 3);
                        let (first, second) = found.split_at_mut(middle);
                        for (lines, into) in [(0..lines / 3, first), (lines / 3..lines, second)] {
                            level.run(Pack {
                                panels,
                                matrix,
                                lines,
                                into,
                            });
                        }
                        let bits = |values: &[f32]| -> Vec<u32> {
                            values.iter().map(|value| value.to_bits()).collect()
                        };
                        assert_eq!(
                            bits(&found),
                            bits(&expected),
                            "{level:?} {form:?} {rows} {columns}"
                        );
                    }
                }
            }
        }
    }
}

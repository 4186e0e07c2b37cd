//! Pairs of bfloat16 in the bits of an f32.
//!
//! A product of bfloat16 sums two neighbours in one lane, so two consecutive values in the
//! direction of the sum are one element: the first in the low half, the second in the high half. In
//! a sum over channels, the two are neighbours in a row; in a sum over pixels, they are the same
//! channel of two rows.

use super::{Form, Rows};
use crate::kernel::simd::{Bf16, Kernel, Simd};
use crate::memory::Memory;

/// The bits of a value rounded to bfloat16 (to nearest, ties to even), in the high half. The low
/// half is undefined.
#[inline(always)]
fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    // Rounding must not turn a NaN into an infinity.
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    if value.is_nan() {
        bits | 0x0040_0000
    } else {
        rounded
    }
}

/// A value rounded to bfloat16.
#[inline(always)]
pub fn rounded(value: f32) -> f32 {
    f32::from_bits(round(value) & 0xffff_0000)
}

/// Rounds values to bfloat16.
#[inline(always)]
pub fn round_all(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = rounded(*value));
}

/// Two values as one element.
#[inline(always)]
pub fn pair(first: f32, second: f32) -> f32 {
    f32::from_bits(round(first) >> 16 | round(second) & 0xffff_0000)
}

/// Some rows in the form of a product's left operand that is summed over columns. `memory` holds
/// them if they are converted.
#[inline(always)]
pub fn of_columns<'a, S: Simd>(
    simd: S,
    form: Form,
    rows: Rows<'a>,
    memory: &'a mut Memory<f32>,
) -> Rows<'a> {
    let Rows {
        values,
        stride,
        count,
    } = rows;
    let from = &values[..count.saturating_mul(stride)];
    match form {
        Form::Plain => rows,
        Form::Rounded => rounded_copy(rows, memory),
        Form::Pairs(proof) => {
            let whole = form.whole(stride);
            let into = memory.need(count * whole / 2);
            if whole == stride {
                simd.outline_pairs(proof, OfColumns { from, into, proof });
            } else {
                let lines = from.chunks_exact(stride);
                for (from, into) in lines.zip(into.chunks_exact_mut(whole / 2)) {
                    let (neighbours, last) = from.split_at(stride - 1);
                    let (into, last_into) = into.split_at_mut(stride / 2);
                    last_into[0] = pair(last[0], 0.0);
                    let from = neighbours;
                    simd.outline_pairs(proof, OfColumns { from, into, proof });
                }
            }
            Rows {
                values: into,
                stride: whole,
                count,
            }
        }
    }
}

/// Some rows in the form of a product's operand that is summed over rows: two rows become one, and
/// zeros fill the pairs of a last row that is alone. `memory` holds them if they are converted.
#[inline(always)]
pub fn of_rows<'a, S: Simd>(
    simd: S,
    form: Form,
    rows: Rows<'a>,
    memory: &'a mut Memory<f32>,
) -> Rows<'a> {
    let Rows {
        values,
        stride,
        count,
    } = rows;
    match form {
        Form::Plain => rows,
        Form::Rounded => rounded_copy(rows, memory),
        Form::Pairs(proof) => {
            let from = &values[..count.saturating_mul(stride)];
            let count = count.div_ceil(2);
            let into = memory.need(count * stride);
            let kernel = OfRows {
                from,
                stride,
                into: &mut *into,
                proof,
            };
            simd.outline_pairs(proof, kernel);
            Rows {
                values: into,
                stride,
                count,
            }
        }
    }
}

#[inline(always)]
fn rounded_copy<'a>(rows: Rows<'_>, memory: &'a mut Memory<f32>) -> Rows<'a> {
    let from = &rows.values[..rows.count.saturating_mul(rows.stride)];
    let into = memory.need(from.len());
    for (into, from) in into.iter_mut().zip(from) {
        *into = rounded(*from);
    }
    Rows {
        values: into,
        ..rows
    }
}

struct OfColumns<'a> {
    from: &'a [f32],
    into: &'a mut [f32],
    proof: Bf16,
}

impl Kernel for OfColumns<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut from = self.from.chunks_exact(S::LANES);
        let mut into = self.into.chunks_exact_mut(S::LANES / 2);
        for (from, into) in (&mut from).zip(&mut into) {
            // SAFETY: the chunks have the lanes of a vector and half as many.
            unsafe { simd.store_pairs(self.proof, into.as_mut_ptr(), simd.load(from.as_ptr())) };
        }
        let rest = from.remainder().chunks_exact(2);
        for (two, into) in rest.zip(into.into_remainder()) {
            *into = pair(two[0], two[1]);
        }
    }
}

struct OfRows<'a> {
    from: &'a [f32],
    stride: usize,
    into: &'a mut [f32],
    proof: Bf16,
}

impl Kernel for OfRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            from,
            stride,
            into,
            proof,
        } = self;
        let two = from.chunks(stride.saturating_mul(2));
        for (two, into) in two.zip(into.chunks_exact_mut(stride)) {
            let (first, second) = two.split_at(stride);
            let there = second.len() == stride;
            let mut column = 0;
            while column < stride {
                let count = S::LANES.min(stride - column);
                // SAFETY: each row has `count` values from `column` on.
                unsafe {
                    let second = if there {
                        simd.load_part(second.as_ptr().add(column), count)
                    } else {
                        simd.zero()
                    };
                    let first = simd.load_part(first.as_ptr().add(column), count);
                    let pairs = simd.pairs_of_lanes(proof, first, second);
                    simd.store_part(into.as_mut_ptr().add(column), pairs, count);
                }
                column += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::kernel::simd::Level;

    #[test]
    fn values_are_rounded_as_bfloat16_is() {
        let mut values = vec![0.0, -0.0, 1.0, -1.5, 7.654_321, 1e-40, 1e38, f32::INFINITY];
        values.extend((0..1000).map(|i| f32::from_bits(0x3f80_0000 + i * 7919)));
        for value in values {
            let bits = pair(value, -value).to_bits();
            let expected = bf16::from_f32(value);
            assert_eq!(bits as u16, expected.to_bits(), "{value}");
            assert_eq!(
                (bits >> 16) as u16,
                bf16::from_f32(-value).to_bits(),
                "{value}"
            );
        }
        assert!(bf16::from_bits(pair(f32::NAN, 0.0).to_bits() as u16).is_nan());
    }

    struct Paired(Form);

    impl Kernel for Paired {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let values: Vec<f32> = (0..7 * 70).map(|i| (i as f32 - 200.0) * 0.37).collect();
            let mut memory = Memory::default();
            for stride in [1, 2, 15, 16, 17, 70] {
                for count in [1, 2, 5, 6] {
                    let rows = Rows {
                        values: &values,
                        stride,
                        count,
                    };
                    let at = |row: usize, column: usize| {
                        if row < count && column < stride {
                            values[row * stride + column]
                        } else {
                            0.0
                        }
                    };
                    let found = of_rows(simd, self.0, rows, &mut memory);
                    assert_eq!((found.stride, found.count), (stride, count.div_ceil(2)));
                    for (i, found) in found.values.iter().enumerate() {
                        let (row, column) = (i / stride * 2, i % stride);
                        let expected = pair(at(row, column), at(row + 1, column));
                        assert_eq!(found.to_bits(), expected.to_bits());
                    }
                    let found = of_columns(simd, self.0, rows, &mut memory);
                    let whole = stride.next_multiple_of(2);
                    assert_eq!((found.stride, found.count), (whole, count));
                    for (i, found) in found.values.iter().enumerate() {
                        let (row, column) = (i / (whole / 2), i % (whole / 2) * 2);
                        let expected = pair(at(row, column), at(row, column + 1));
                        assert_eq!(found.to_bits(), expected.to_bits());
                    }
                }
            }
        }
    }

    #[test]
    fn rows_and_columns_are_paired_and_a_last_one_with_zeros() {
        if let Some(proof) = Bf16::detect() {
            Level::Avx512Bf16.run(Paired(Form::Pairs(proof)));
        }
    }
}

//! Pairs of bfloat16 in the bits of an f32.
//!
//! A product of bfloat16 sums two neighbours in one lane, so two values that follow each other in
//! the direction of the sum are one element: the first in the low half, the second in the high
//! half. Where channels are summed over, they are neighbours in a row; where pixels are, they are
//! the same channel of two rows.

use super::simd::{Kernel, Simd};

/// The bits of a value rounded to bfloat16 (to nearest, ties to even), in the high half; the low
/// half is rubbish.
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
pub(crate) fn rounded(value: f32) -> f32 {
    f32::from_bits(round(value) & 0xffff_0000)
}

/// Rounds values to bfloat16.
#[inline(always)]
pub(crate) fn round_all(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = rounded(*value));
}

/// Two values as one element.
#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> f32 {
    f32::from_bits(round(first) >> 16 | round(second) & 0xffff_0000)
}

/// Neighbouring values: as many elements as half of `from`.
#[inline(always)]
pub(crate) fn of_columns<S: Simd>(simd: S, from: &[f32], into: &mut [f32]) {
    assert_eq!(from.len(), 2 * into.len());
    // SAFETY: pairs are asked for only at the level that has them (see `Form::of`).
    unsafe { simd.outline_pairs(OfColumns { from, into }) };
}

/// Neighbouring values of one row, whose last is paired with zero if it is alone.
#[inline(always)]
pub(crate) fn of_row<S: Simd>(simd: S, from: &[f32], into: &mut [f32]) {
    let whole = from.len() / 2;
    of_columns(simd, &from[..2 * whole], &mut into[..whole]);
    if let (Some(last), Some(into)) = (from.get(2 * whole), into.get_mut(whole)) {
        *into = pair(*last, 0.0);
    }
}

/// Rows `2 r` and `2 r + 1` of `from` as row r of `into`, both of `stride`; where there is no
/// second row it counts as zeros.
#[inline(always)]
pub(crate) fn of_rows<S: Simd>(simd: S, from: &[f32], stride: usize, into: &mut [f32]) {
    // SAFETY: as in `of_columns`.
    unsafe { simd.outline_pairs(OfRows { from, stride, into }) };
}

struct OfColumns<'a> {
    from: &'a [f32],
    into: &'a mut [f32],
}

impl Kernel for OfColumns<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut from = self.from.chunks_exact(2 * S::LANES);
        let mut into = self.into.chunks_exact_mut(S::LANES);
        for (from, into) in (&mut from).zip(&mut into) {
            // SAFETY: the chunks have the lanes of two vectors and of one; for the level see
            // `of_columns`.
            unsafe {
                let (a, b) = (from.as_ptr(), from[S::LANES..].as_ptr());
                let pairs = simd.pairs_of_neighbours(simd.load(a), simd.load(b));
                simd.store(into.as_mut_ptr(), pairs);
            }
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
}

impl Kernel for OfRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { from, stride, into } = self;
        for (two, into) in from.chunks(2 * stride).zip(into.chunks_exact_mut(stride)) {
            let (first, second) = two.split_at(stride.min(two.len()));
            let there = second.len() == stride;
            let mut column = 0;
            while column < stride {
                let count = S::LANES.min(stride - column);
                // SAFETY: `count` values from `column` on lie in each row; for the level see
                // `of_columns`.
                unsafe {
                    let second = if there {
                        simd.load_part(second.as_ptr().add(column), count)
                    } else {
                        simd.zero()
                    };
                    let first = simd.load_part(first.as_ptr().add(column), count);
                    let pairs = simd.pairs_of_lanes(first, second);
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

    use super::super::simd::Level;
    use super::*;

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

    struct Paired;

    impl Kernel for Paired {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let values: Vec<f32> = (0..7 * 70).map(|i| (i as f32 - 200.0) * 0.37).collect();
            for stride in [1, 2, 15, 16, 17, 70] {
                for rows in [1, 2, 5, 6] {
                    let from = &values[..rows * stride];
                    let mut into = vec![f32::NAN; rows.div_ceil(2) * stride];
                    of_rows(simd, from, stride, &mut into);
                    for (i, found) in into.iter().enumerate() {
                        let at = i / stride * 2 * stride + i % stride;
                        let second = from.get(at + stride).copied().unwrap_or(0.0);
                        assert_eq!(found.to_bits(), pair(from[at], second).to_bits());
                    }
                    let mut into = vec![f32::NAN; from.len().div_ceil(2)];
                    of_row(simd, from, &mut into);
                    for (found, two) in into.iter().zip(from.chunks(2)) {
                        let second = two.get(1).copied().unwrap_or(0.0);
                        assert_eq!(found.to_bits(), pair(two[0], second).to_bits());
                    }
                }
            }
        }
    }

    #[test]
    fn rows_and_columns_are_paired_and_a_last_one_with_zeros() {
        if Level::detect() == Level::Avx512Bf16 {
            Level::Avx512Bf16.run(Paired);
        }
    }
}

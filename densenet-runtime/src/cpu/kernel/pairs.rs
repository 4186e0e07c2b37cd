//! Pairs of bfloat16 in the bits of an f32.
//!
//! A product of bfloat16 sums two neighbours in one lane, so two values that follow each other in
//! the direction of the sum are one element: the first in the low half, the second in the high
//! half. Where channels are summed over, they are neighbours in a row; where pixels are, they are
//! the same channel of two rows.

use super::simd::Simd;

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

/// Neighbouring values of rows: as many elements as half of `from`.
#[inline(always)]
pub(crate) fn of_columns<S: Simd>(simd: S, from: &[f32], into: &mut [f32]) {
    debug_assert_eq!(from.len(), 2 * into.len());
    simd.narrow(from, into);
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
pub(crate) fn of_rows(from: &[f32], stride: usize, into: &mut [f32]) {
    for (two, into) in from.chunks(2 * stride).zip(into.chunks_exact_mut(stride)) {
        let (first, second) = two.split_at(stride.min(two.len()));
        if second.len() == stride {
            for ((into, first), second) in into.iter_mut().zip(first).zip(second) {
                *into = pair(*first, *second);
            }
        } else {
            for (into, first) in into.iter_mut().zip(first) {
                *into = pair(*first, 0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

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

    #[test]
    fn rows_are_paired_and_a_last_one_with_zeros() {
        let from = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut into = [f32::NAN; 4];
        of_rows(&from, 2, &mut into);
        assert_eq!(
            into.map(f32::to_bits),
            [
                pair(1.0, 3.0),
                pair(2.0, 4.0),
                pair(5.0, 0.0),
                pair(6.0, 0.0)
            ]
            .map(f32::to_bits)
        );
    }
}

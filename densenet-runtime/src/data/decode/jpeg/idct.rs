//! From coefficients to samples: libjpeg's integer inverse DCT (`jidctint`, after Loeffler,
//! Ligtenberg and Moschytz), with its constants and rounding, so that the samples are the same.

use super::block::DctBlock;
use densenet_cpu::Level;
use densenet_cpu::kernel::simd::{Kernel, Simd};

/// Fractional bits of the constants.
const FRACTION: u32 = 13;
/// Fractional bits that the first pass keeps.
const KEPT: u32 = 2;

const fn fixed(number: f64) -> i32 {
    (number * (1 << FRACTION) as f64 + 0.5) as i32
}

/// Writes 8 x 8 samples, `stride` bytes from row to row. All coefficients after index `last`, in
/// the order of the file, are zero.
pub(super) fn samples(
    level: Level,
    block: &DctBlock,
    last: usize,
    quantization: &[u16; 64],
    into: &mut [u8],
    stride: usize,
) {
    if last == 0 {
        let dc = i32::from(block[0]) * i32::from(quantization[0]);
        let sample = sample(dc.wrapping_shl(KEPT), KEPT + 3);
        for row in into.chunks_mut(stride).take(8) {
            row[..8].fill(sample);
        }
        return;
    }
    level.run(Whole {
        block,
        quantization,
        into,
        stride,
    });
}

/// The transform of a block.
struct Whole<'a> {
    block: &'a DctBlock,
    quantization: &'a [u16; 64],
    into: &'a mut [u8],
    stride: usize,
}

impl Kernel for Whole<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let mut inputs = [0; 64];
        for ((input, &coefficient), &step) in
            inputs.iter_mut().zip(self.block).zip(self.quantization)
        {
            *input = i32::from(coefficient) * i32::from(step);
        }
        let mut between = [0; 64];
        pass(&inputs, &mut between, FRACTION - KEPT);
        let mut outputs = [0; 64];
        pass(&transposed(&between), &mut outputs, FRACTION + KEPT + 3);
        let mut bytes = [0; 64];
        for (byte, number) in bytes.iter_mut().zip(outputs) {
            *byte = number.wrapping_add(128).clamp(0, 255) as u8;
        }
        for (row, into) in self.into.chunks_mut(self.stride).take(8).enumerate() {
            for (column, byte) in into[..8].iter_mut().enumerate() {
                *byte = bytes[8 * column + row];
            }
        }
    }
}

/// The byte of a fixed-point number. Zero is mid-grey.
fn sample(number: i32, fraction: u32) -> u8 {
    let number = number.wrapping_add(1 << (fraction - 1)) >> fraction;
    number.wrapping_add(128).clamp(0, 255) as u8
}

#[inline(always)]
fn transposed(numbers: &[i32; 64]) -> [i32; 64] {
    let mut transposed = [0; 64];
    for row in 0..8 {
        for column in 0..8 {
            transposed[8 * column + row] = numbers[8 * row + column];
        }
    }
    transposed
}

/// Transforms each column and drops fractional bits. The inner loop goes over columns, so that it
/// vectorises. The numbers of a damaged file may be too large; they wrap around.
#[inline(always)]
fn pass(inputs: &[i32; 64], outputs: &mut [i32; 64], dropped: u32) {
    let add = i32::wrapping_add;
    let sub = i32::wrapping_sub;
    let times = |number: i32, constant: i32| number.wrapping_mul(constant);
    let half = 1 << (dropped - 1);
    for column in 0..8 {
        let input = |row: usize| inputs[8 * row + column];
        // The even part.
        let (a0, a2, a4, a6) = (input(0), input(2), input(4), input(6));
        let z1 = times(add(a2, a6), const { fixed(0.541196100) });
        let t2 = sub(z1, times(a6, const { fixed(1.847759065) }));
        let t3 = add(z1, times(a2, const { fixed(0.765366865) }));
        let t0 = add(add(a0, a4).wrapping_shl(FRACTION), half);
        let t1 = add(sub(a0, a4).wrapping_shl(FRACTION), half);
        let even = [add(t0, t3), add(t1, t2), sub(t1, t2), sub(t0, t3)];
        // The odd part.
        let (a1, a3, a5, a7) = (input(1), input(3), input(5), input(7));
        let z5 = times(add(add(a7, a3), add(a5, a1)), const { fixed(1.175875602) });
        let z1 = times(add(a7, a1), const { fixed(0.899976223) });
        let z2 = times(add(a5, a3), const { fixed(2.562915447) });
        let z3 = sub(z5, times(add(a7, a3), const { fixed(1.961570560) }));
        let z4 = sub(z5, times(add(a5, a1), const { fixed(0.390180644) }));
        let odd = [
            add(sub(times(a1, const { fixed(1.501321110) }), z1), z4),
            add(sub(times(a3, const { fixed(3.072711026) }), z2), z3),
            add(sub(times(a5, const { fixed(2.053119869) }), z2), z4),
            add(sub(times(a7, const { fixed(0.298631336) }), z1), z3),
        ];
        for row in 0..4 {
            outputs[8 * row + column] = add(even[row], odd[row]) >> dropped;
            outputs[8 * (7 - row) + column] = sub(even[row], odd[row]) >> dropped;
        }
    }
}

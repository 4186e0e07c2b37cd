//! Transposes square blocks of values in vectors.

use super::simd::Simd;

/// The largest number of lanes of a vector.
pub const LANES: usize = 16;

/// A block of vectors; the first [`Simd::LANES`] are used.
pub type Square<S> = [<S as Simd>::Vector; LANES];

/// Lane c of vector r becomes lane r of vector c.
///
/// Write the number of a vector and the number of a lane in bits, one after the other. Each round
/// of interleaving the first half of the vectors with the second half rotates these bits by one.
#[inline(always)]
pub fn transpose<S: Simd>(simd: S, block: Square<S>) -> Square<S> {
    let half = S::LANES / 2;
    let mut block = block;
    for _ in 0..S::LANES.ilog2() {
        let before = block;
        for i in 0..half {
            (block[2 * i], block[2 * i + 1]) = simd.interleave(before[i], before[half + i]);
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Kernel, Level};
    use super::*;

    struct Turn;

    impl Kernel for Turn {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let values: Vec<f32> = (0..S::LANES * S::LANES).map(|n| n as f32).collect();
            let mut block = [simd.zero(); LANES];
            for (row, vector) in values.chunks_exact(S::LANES).zip(&mut block) {
                // SAFETY: the row has the lanes of a vector.
                *vector = unsafe { simd.load(row.as_ptr()) };
            }
            let block = transpose(simd, block);
            for (c, vector) in block.into_iter().enumerate().take(S::LANES) {
                let mut found = [f32::NAN; LANES];
                // SAFETY: the array has the lanes of a vector.
                unsafe { simd.store(found.as_mut_ptr(), vector) };
                for (r, found) in found.into_iter().enumerate().take(S::LANES) {
                    assert_eq!(found, values[r * S::LANES + c], "row {r}, column {c}");
                }
            }
        }
    }

    #[test]
    fn rows_become_columns() {
        for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
            level.run(Turn);
        }
    }
}

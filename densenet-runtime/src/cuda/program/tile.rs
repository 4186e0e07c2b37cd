//! The tiles that kernels work on. Their sizes are passed to the kernels as constants.

use super::slices::MULTIPROCESSORS;
use crate::plan::{Block, Plan, Precision};

/// Pixels of a tile, unless a program has its own constant.
pub const ROWS: usize = 64;
/// Channels of a tile, unless a program has its own constant.
pub const COLUMNS: usize = 64;
/// Threads that work on a tile.
pub const THREADS: usize = 256;
/// Threads that add up the sums of a channel's tiles, or those of an image's classes.
pub const REDUCTION_THREADS: usize = 128;
/// Threads of a block that combines the results of tiles and slices.
pub const GATHER_THREADS: usize = 512;
/// Values of weights that a block packs.
pub const PACKED: usize = 2048;
/// Vectors that a thread loads at once where it sweeps over pixels.
pub const SWEPT: usize = 4;
/// The most blocks of a sweep. Each of their threads computes constants of its channels, so there
/// are only enough to load the multiprocessors of a large card evenly.
pub const SWEEPING: usize = 12 * MULTIPROCESSORS;
/// Bytes of an operand's line that are copied to shared memory at once.
pub const DEPTH_BYTES: usize = 64;
/// Padding between the lines of an operand in shared memory, in bytes.
pub const PAD_BYTES: usize = 16;

/// The number of tiles for this many pixels.
pub fn tiles(pixels: usize) -> usize {
    pixels.div_ceil(ROWS)
}

/// Maps of a tile of a 1x1 convolution: all, up to 128, so that the wide end of a block is read
/// once. A transition has more maps; in its backward pass a tile has this many channels.
pub fn pointwise_columns(maps: usize) -> usize {
    if maps > 64 { 128 } else { 64 }
}

/// The number of values that are loaded and stored at once: the largest that divides all these
/// counts, up to 16 bytes.
pub fn vector(precision: Precision, counts: &[usize]) -> usize {
    let most = 16 / precision.bytes();
    let fits = |width: &usize| counts.iter().all(|count| count.is_multiple_of(*width));
    [8, 4, 2, 1]
        .into_iter()
        .find(|width| *width <= most && fits(width))
        .unwrap_or(1)
}

/// The longest vector that [`vector`] may return. If all counts are multiples of the vector, so are
/// positions that are aligned to this.
pub const LONGEST_VECTOR: usize = 8;

/// [`vector`] for all blocks of a plan.
pub fn vector_of(plan: &Plan, precision: Precision) -> usize {
    let of_block = |block: &Block| {
        let counts = [Some(block.input), Some(block.growth), block.bottleneck];
        counts.into_iter().flatten()
    };
    let counts: Vec<_> = plan.blocks().iter().flat_map(of_block).collect();
    vector(precision, &counts)
}

/// Bytes of a line of an operand in shared memory.
pub fn line(elements: usize, precision: Precision) -> usize {
    elements * precision.bytes() + PAD_BYTES
}

/// Bytes of a tile of results, including the sums of its columns.
pub fn stage(rows: usize, columns: usize) -> usize {
    rows * (columns + 4) * 4 + 2 * THREADS * 4
}

/// The depth of a piece of a product.
pub fn depth(precision: Precision) -> usize {
    DEPTH_BYTES / precision.bytes()
}

/// Bytes of shared memory that a block can use on every card.
pub const SHARED: usize = 99 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_divide_all_counts() {
        assert_eq!(vector(Precision::Bf16, &[64, 32, 128]), LONGEST_VECTOR);
        assert_eq!(vector(Precision::F32, &[64, 32, 128]), 4);
        assert_eq!(vector(Precision::Bf16, &[24, 12, 48]), 4);
        assert_eq!(vector(Precision::Bf16, &[24, 12, 49]), 1);
    }
}

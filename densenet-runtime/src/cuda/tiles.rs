//! The tiles that kernels work on: their sizes, as the kernels' files have them or are told.

use crate::plan::{Block, Plan, Precision};

/// Pixels of a tile, where a kernel's file says nothing else; as in `common.cuh`.
pub(super) const ROWS: usize = 64;
/// Channels of a tile, where a kernel's file says nothing else; as in `common.cuh`.
pub(super) const COLUMNS: usize = 64;
/// Threads that work on a tile, as in `common.cuh`.
pub(super) const THREADS: usize = 256;
/// Channels of a tile of a transition's weight, as in `transition.cu`.
pub(super) const TRANSITION_CHANNELS: usize = 64;
/// Maps of a tile of a 3x3 convolution, and of its weight's gradient, as in `spatial.cu`.
pub(super) const SPATIAL_MAPS: usize = 32;
/// Channels of a tile of a way back, as in `pointwise.cu` and `spatial.cu`.
pub(super) const BACK_CHANNELS: usize = 64;
/// Blocks that a slice of pixels has for a tile of a 3x3 weight's gradient: one for each row of
/// taps, as in `spatial.cu`.
pub(super) const TAP_ROWS: usize = 3;

/// Pixels of a tile of a block's 3x3 convolutions. Large ones stage fewer pixels around them; of
/// small images there would be too few.
pub(super) fn spatial_rows(block: &Block) -> usize {
    if block.pixels() > 200 { 128 } else { ROWS }
}

/// Maps of a tile of a 1x1 convolution: all, up to 128, so that the wide end of a block is read
/// once. A transition has more; its way back has as many channels in a tile.
pub(super) fn pointwise_columns(maps: usize) -> usize {
    if maps > 64 { 128 } else { 64 }
}

/// Elements of a patch in a tile of the stem's weight: all, up to 160, so that the gradient is
/// gathered once. Warps share them in sixteens.
pub(super) fn stem_elements(patch: usize) -> usize {
    let tiles = patch.div_ceil(160).max(1);
    patch.div_ceil(tiles).next_multiple_of(32)
}

/// Maps that the way back through a 1x1 convolution works on at once, as many as shared memory
/// has room for on every card.
pub(super) fn maps_of_back(maps: usize, precision: Precision) -> usize {
    let most = match precision {
        Precision::F32 => 64,
        Precision::Bf16 => 256,
    };
    maps.next_multiple_of(64).min(most)
}

/// Values that are loaded and stored at once: the most that divide all these counts, up to 16
/// bytes.
pub(super) fn vector(precision: Precision, counts: &[usize]) -> usize {
    let most = 16 / precision.bytes();
    let fits = |width: &usize| counts.iter().all(|count| count.is_multiple_of(*width));
    [8, 4, 2, 1]
        .into_iter()
        .find(|width| *width <= most && fits(width))
        .unwrap_or(1)
}

/// The same for all blocks of a plan.
pub(super) fn vector_of(plan: &Plan, precision: Precision) -> usize {
    let of_block = |block: &Block| {
        let counts = [Some(block.input), Some(block.growth), block.bottleneck];
        counts.into_iter().flatten()
    };
    let counts: Vec<_> = plan.blocks().iter().flat_map(of_block).collect();
    vector(precision, &counts)
}

/// Bytes of a line of an operand in shared memory: 16 are padding.
fn line(elements: usize, precision: Precision) -> usize {
    elements * precision.bytes() + 16
}

/// Bytes of a tile of results, and of the sums of its columns.
fn stage(rows: usize, columns: usize) -> usize {
    rows * (columns + 4) * 4 + 2 * THREADS * 4
}

/// Depths of a piece of a product: 64 bytes.
fn depth(precision: Precision) -> usize {
    64 / precision.bytes()
}

/// So many pixels of a tile and around it, `elements` of each, and which taps are inside the image.
fn halo(rows: usize, staged: usize, elements: usize, precision: Precision) -> usize {
    ((staged + 1) * line(elements, precision) + 2 * rows).next_multiple_of(16)
}

/// Bytes of shared memory that the kernels of a block's 3x3 convolutions have: forward, pull,
/// weight.
pub(super) fn spatial_shared(block: &Block, precision: Precision) -> [usize; 3] {
    let (rows, depth) = (spatial_rows(block), depth(precision));
    let staged = rows + 2 * block.width.min(rows + 2) + 2;
    let operand = halo(rows, staged, depth, precision);
    let forward = operand + 9 * SPATIAL_MAPS * line(depth, precision);
    let pull = operand + 9 * depth * line(BACK_CHANNELS, precision);
    let weight =
        halo(rows, rows + 2, BACK_CHANNELS, precision) + rows * line(SPATIAL_MAPS, precision);
    [
        forward.max(stage(rows, SPATIAL_MAPS)),
        pull.max(stage(rows, BACK_CHANNELS)),
        weight,
    ]
}

/// Bytes of shared memory that the way back through a 1x1 convolution has, and how many tiles of
/// the gradient of its maps fit: two, where two blocks can still share a multiprocessor.
pub(super) fn pointwise_back_shared(maps: usize, precision: Precision) -> (usize, usize) {
    let group = maps_of_back(maps, precision);
    let rows = 64;
    let weight = group * line(BACK_CHANNELS, precision);
    let dout = rows * line(group, precision);
    let rest =
        rows * line(BACK_CHANNELS, precision) + stage(rows, BACK_CHANNELS) + 16 * BACK_CHANNELS;
    let tiles = if weight + 2 * dout + rest <= 88 << 10 {
        2
    } else {
        1
    };
    (weight + tiles * dout + rest, tiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_divide_all_counts() {
        assert_eq!(vector(Precision::Bf16, &[64, 32, 128]), 8);
        assert_eq!(vector(Precision::F32, &[64, 32, 128]), 4);
        assert_eq!(vector(Precision::Bf16, &[24, 12, 48]), 4);
        assert_eq!(vector(Precision::Bf16, &[24, 12, 49]), 1);
    }

    /// A block as wide in maps and in pixels as they come.
    fn wide() -> Block {
        Block {
            input: 96,
            growth: 48,
            layers: 2,
            bottleneck: Some(384),
            height: 256,
            width: 256,
        }
    }

    #[test]
    fn shared_memory_is_within_what_every_card_has() {
        for precision in [Precision::F32, Precision::Bf16] {
            let spatial = spatial_shared(&wide(), precision);
            let (back, _) = pointwise_back_shared(384, precision);
            for bytes in spatial.into_iter().chain([back]) {
                assert!(bytes <= 99 << 10, "{precision:?}: {bytes} bytes");
            }
        }
    }
}

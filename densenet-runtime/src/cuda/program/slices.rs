//! How pixels are divided into slices, over which kernels sum weights' gradients.

/// The limit for the slices' shares of a weight's gradient, in f32.
const MOST_SHARES: usize = 4 << 20;
/// The fewest pixels of a slice.
const SLICE: usize = 256;
/// Multiprocessors of an H100: slices are sized so that their blocks run on these at once.
pub const MULTIPROCESSORS: usize = 132;
/// Those of them that are left to NCCL where it averages beside the kernels: half of the most blocks
/// that it has by default. Without room beside it, a launch of exactly as many blocks as can run at
/// once would take twice its time.
const BESIDE: usize = 16;

/// The multiprocessors that slices are sized for, alone or beside NCCL.
pub fn multiprocessors(beside: bool) -> usize {
    if beside {
        MULTIPROCESSORS - BESIDE
    } else {
        MULTIPROCESSORS
    }
}

/// How a kernel sums a weight's gradient: over slices of the pixels, each of which leaves a share.
/// It depends only on shapes, and on whether there are other ranks, so that sums are the same on every
/// card.
#[derive(Clone, Copy, Debug)]
pub struct Slicing {
    /// The number of values of the weight.
    pub weight: usize,
    /// The number of blocks for each slice.
    pub blocks: usize,
    /// How many blocks a multiprocessor can run at once.
    pub room: usize,
    /// The pixels of a tile. A slice consists of whole tiles.
    pub tile: usize,
}

impl Slicing {
    /// The number of slices for this many pixels on this many multiprocessors, and the pixels of each.
    pub fn slices(&self, pixels: usize, multiprocessors: usize) -> (usize, usize) {
        let length = pixels.div_ceil(self.most_on(multiprocessors, pixels));
        let length = length.next_multiple_of(self.tile);
        (pixels.div_ceil(length), length)
    }

    /// The largest number of slices for up to this many pixels. If there were more blocks than can
    /// run at once, all would wait for the last; and more slices write more shares.
    pub fn most(&self, pixels: usize) -> usize {
        self.most_on(MULTIPROCESSORS, pixels)
    }

    fn most_on(&self, multiprocessors: usize, pixels: usize) -> usize {
        let at_once = multiprocessors * self.room / self.blocks.max(1);
        let most = at_once.min(MOST_SHARES / self.weight.max(1));
        most.min(pixels.div_ceil(SLICE)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_all_pixels_and_stay_within_their_memory() {
        for pixels in [1, 15, 256, 257, 5000, 1_000_000] {
            for weight in [1, 1000, MOST_SHARES, 2 * MOST_SHARES] {
                for blocks in [1, 18, 28, 1000] {
                    let own = Slicing {
                        weight,
                        blocks,
                        room: 2,
                        tile: 64,
                    };
                    for room in [multiprocessors(false), multiprocessors(true)] {
                        let (count, length) = own.slices(pixels, room);
                        assert!(count * length >= pixels && (count - 1) * length < pixels);
                        assert!(count == 1 || count * weight <= MOST_SHARES);
                        assert!(count == 1 || count * blocks <= 2 * room);
                        assert!(count <= own.most(pixels));
                        assert_eq!(length % 64, 0, "tiles do not cross slices");
                    }
                }
            }
        }
    }
}

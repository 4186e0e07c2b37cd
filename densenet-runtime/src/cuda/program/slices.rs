//! How pixels are cut into slices where kernels sum weights' gradients.

/// The most f32 that the slices' shares of a weight's gradient may take.
const MOST_SHARES: usize = 4 << 20;
/// The fewest pixels of a slice.
const SLICE: usize = 256;
/// Multiprocessors of an H100, whose room at once is what slices are made for.
const MULTIPROCESSORS: usize = 132;

/// How a kernel sums a weight's gradient: over slices of the pixels, each of which leaves a share.
/// Depends on shapes alone, so that sums are the same on every card.
#[derive(Clone, Copy, Debug)]
pub struct Slicing {
    /// Values of the weight.
    pub weight: usize,
    /// Blocks of a slice.
    pub blocks: usize,
    /// Blocks that a multiprocessor has room for at once.
    pub room: usize,
    /// Pixels of a tile. A slice has whole tiles.
    pub tile: usize,
}

impl Slicing {
    /// Slices of so many pixels, and pixels of each.
    pub fn slices(&self, pixels: usize) -> (usize, usize) {
        let length = pixels.div_ceil(self.most(pixels));
        let length = length.next_multiple_of(self.tile);
        (pixels.div_ceil(length), length)
    }

    /// The most slices of up to so many pixels. A block more than there is room for would have all
    /// wait for it, and more slices write more shares.
    pub fn most(&self, pixels: usize) -> usize {
        let at_once = MULTIPROCESSORS * self.room / self.blocks.max(1);
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
                    let (count, length) = own.slices(pixels);
                    assert!(count * length >= pixels && (count - 1) * length < pixels);
                    assert!(count == 1 || count * weight <= MOST_SHARES);
                    assert!(count == 1 || count * blocks <= 2 * MULTIPROCESSORS);
                    assert!(count <= own.most(pixels));
                    assert_eq!(length % 64, 0, "tiles do not cross slices");
                }
            }
        }
    }
}

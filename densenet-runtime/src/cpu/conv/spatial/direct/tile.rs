//! Rows of an image as a padded tile.

use std::ops::Range;

use crate::cpu::conv::spatial::Size;
use crate::cpu::engine::padded;
use crate::cpu::kernel::load::NormRelu;
use crate::cpu::kernel::simd::Simd;

/// Channels of a tile, in whole panels of every level.
pub(super) const CHANNELS: usize = 192;
/// Pixels of a tile, about.
const TILE_PIXELS: usize = 224;

impl Size {
    /// Pixels from one row of a padded tile to the next.
    pub(super) fn pitch(self) -> usize {
        self.width + 1
    }

    /// Pixels of a padded tile for `rows` rows of output.
    pub(super) fn padded_pixels(self, rows: usize) -> usize {
        (rows + 2) * self.pitch() + 1
    }

    /// Output pixels of a tile, with the zeros between rows.
    pub(super) fn outputs(self, rows: usize) -> usize {
        rows * self.pitch() - 1
    }

    /// Offset of each neighbour, in pixels of the padded tile.
    pub(super) fn taps(self) -> [usize; 9] {
        std::array::from_fn(|tap| (tap / 3) * self.pitch() + tap % 3)
    }

    /// Cuts rows, counted over all images, into tiles within an image; yields the first row and
    /// the number of rows.
    pub(super) fn tiles(self, rows: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let most = (TILE_PIXELS / self.pitch()).max(1);
        let mut next = rows.start;
        std::iter::from_fn(move || {
            let left = (self.height - next % self.height).min(rows.end - next);
            let count = left.div_ceil(left.div_ceil(most).max(1));
            let tile = (next, count);
            next += count;
            (count > 0).then_some(tile)
        })
    }

    /// The rows of a padded tile (0 is above the first) that lie within the image, with the
    /// image row of each, counted over all images.
    #[inline(always)]
    pub(super) fn inside(
        self,
        first: usize,
        rows: usize,
    ) -> impl Iterator<Item = (usize, Option<usize>)> {
        let top = first - first % self.height;
        (0..rows + 2).map(move |row| {
            let y = (first + row).wrapping_sub(1);
            let within = first + row > top && y < top + self.height;
            (row, within.then_some(y))
        })
    }
}

/// Fills a padded tile with BN and ReLU of some channels.
#[inline(always)]
pub(super) fn load_tile<S: Simd>(
    simd: S,
    source: NormRelu<'_>,
    channels: Range<usize>,
    size: Size,
    (first, rows): (usize, usize),
    into: &mut [f32],
) {
    let stride = padded(channels.len());
    into[..stride].fill(0.0);
    for (row, y) in size.inside(first, rows) {
        let line = &mut into[(1 + row * size.pitch()) * stride..][..size.pitch() * stride];
        let Some(y) = y else {
            line.fill(0.0);
            continue;
        };
        let (pixels, zeros) = line.split_at_mut(size.width * stride);
        zeros.fill(0.0);
        for (x, pixel) in pixels.chunks_exact_mut(stride).enumerate() {
            let (values, rest) = pixel.split_at_mut(channels.len());
            source.pixel(simd, y * size.width + x, channels.clone(), values);
            rest.fill(0.0);
        }
    }
}

/// Fills a padded tile with the gradient of the maps.
#[inline(always)]
pub(super) fn load_gradient(
    dout: &[f32],
    maps: usize,
    size: Size,
    (first, rows): (usize, usize),
    into: &mut [f32],
) {
    let stride = padded(maps);
    into[..stride].fill(0.0);
    for (row, y) in size.inside(first, rows) {
        let line = &mut into[(1 + row * size.pitch()) * stride..][..size.pitch() * stride];
        line.fill(0.0);
        if let Some(y) = y {
            let from = dout[y * size.width * maps..][..size.width * maps].chunks_exact(maps);
            for (pixel, from) in line.chunks_exact_mut(stride).zip(from) {
                pixel[..maps].copy_from_slice(from);
            }
        }
    }
}

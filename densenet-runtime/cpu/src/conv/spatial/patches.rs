//! Rows of patches, and the strips of pixels under them.

use std::ops::Range;

use super::Size;
use crate::engine::padded;
use crate::kernel::load::{Load, NormRelu};
use crate::kernel::product::blocks;
use crate::kernel::simd::Simd;
use crate::kernel::winograd::{Layout, Strip};
use crate::memory::Memory;

/// Rows of patches, counted over all images.
#[derive(Clone, Copy)]
pub(super) struct PatchRows(pub Size);

impl PatchRows {
    /// Patches in a row.
    pub fn columns(self) -> usize {
        self.0.width.div_ceil(2)
    }

    /// Rows of patches in `images` images.
    pub fn count(self, images: usize) -> usize {
        images * self.0.height.div_ceil(2)
    }

    /// The first row of pixels in a row of patches, counted over all images.
    pub fn start(self, row: usize) -> usize {
        let inside = self.0.height.div_ceil(2);
        row / inside * self.0.height + row % inside * 2
    }

    /// The rows of pixels in a row of patches.
    pub fn height(self, row: usize) -> usize {
        self.start(row + 1) - self.start(row)
    }

    /// The pixels of some rows of patches.
    pub fn pixels(self, rows: Range<usize>) -> Range<usize> {
        self.start(rows.start) * self.0.width..self.start(rows.end) * self.0.width
    }

    /// Cuts rows of patches into tiles of about `patches` patches.
    pub fn tiles(self, rows: Range<usize>, patches: usize) -> impl Iterator<Item = Range<usize>> {
        let most = (patches / self.columns()).max(1);
        blocks(rows.len(), most).map(move |(first, count)| {
            let first = rows.start + first;
            first..first + count
        })
    }

    /// The four rows of pixels under a row of patches: the first pixel of each, or `None` in the
    /// padding.
    pub fn under(self, row: usize) -> [Option<usize>; 4] {
        let Size { height, width } = self.0;
        let inside = height.div_ceil(2);
        let (image, top) = (row / inside, row % inside * 2);
        std::array::from_fn(|r| {
            let y = (top + r).wrapping_sub(1);
            (y < height).then(|| (image * height + y) * width)
        })
    }
}

/// Loads some channels of the strip under a row of patches, with zeros around the image. If `again`
/// is set, the memory holds the strip of the previous row of patches, and the rows of pixels that
/// both have are kept.
#[inline(always)]
pub(super) fn load_strip<'a, S: Simd>(
    simd: S,
    patches: PatchRows,
    row: usize,
    source: &impl Load,
    channels: Range<usize>,
    memory: &'a mut Memory<f32>,
    again: bool,
) -> Strip<'a> {
    let (width, columns) = (patches.0.width, patches.columns());
    let stride = padded(channels.len());
    let line = Strip::pitch(columns) * stride;
    let values = memory.need(4 * line);
    let inside = row % patches.0.height.div_ceil(2);
    // The first two rows of pixels of every other row of patches are stored where the previous row
    // had its last two.
    let first = inside % 2 * 2;
    let kept = if again && inside > 0 { 2 } else { 0 };
    for (r, pixel) in patches.under(row).into_iter().enumerate().skip(kept) {
        let line = &mut values[(first + r) % 4 * line..][..line];
        let Some(pixel) = pixel else {
            line.fill(0.0);
            continue;
        };
        let (left, rest) = line.split_at_mut(stride);
        let (middle, right) = rest.split_at_mut(width * stride);
        left.fill(0.0);
        right.fill(0.0);
        source.load(simd, pixel..pixel + width, channels.clone(), middle, stride);
        if channels.len() < stride {
            for pixel in middle.chunks_exact_mut(stride) {
                pixel[channels.len()..].fill(0.0);
            }
        }
    }
    Strip {
        values,
        columns,
        stride,
        first,
    }
}

/// Transforms the patches of a tile into places; BN and ReLU of some channels are applied on the
/// way. `memory` holds a strip.
#[inline(always)]
pub(super) fn transform_tile<S: Simd>(
    simd: S,
    patches: PatchRows,
    tile: Range<usize>,
    source: NormRelu<'_>,
    channels: Range<usize>,
    memory: &mut Memory<f32>,
    (into, layout): (&mut [f32], Layout),
) {
    for (index, row) in tile.enumerate() {
        let strip = load_strip(
            simd,
            patches,
            row,
            &source,
            channels.clone(),
            memory,
            index > 0,
        );
        let into = &mut into[layout.row(index)..];
        strip.transform(simd, channels.len(), into, layout);
    }
}

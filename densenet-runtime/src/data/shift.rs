//! The paper's augmentation of small images.

use super::{Rng, augment, resize};

/// The paper's "+" (section 4.1, as in C10+): the image is padded on all sides, cropped to its
/// original size at a random position, and mirrored half of the time. Beyond the paper, a rectangle
/// may be erased.
#[derive(Clone, Debug, PartialEq)]
pub struct ShiftAndFlip {
    /// Pixels of padding on each side.
    pub pad: usize,
    /// Whether images are mirrored. Digits should not be.
    pub flip: bool,
    /// The share of images from which a rectangle is erased, in [0, 1] (Zhong et al., 2017, "Random
    /// Erasing"; torchvision's `RandomErasing`): it gets the padding's colour. The paper erases none.
    pub erase: f64,
    /// The padding's colour: a byte for each channel.
    pub fill: Vec<u8>,
}

impl ShiftAndFlip {
    /// The paper's: 4 pixels of padding, and mirroring.
    pub fn paper(fill: Vec<u8>) -> Self {
        Self {
            pad: 4,
            flip: true,
            erase: 0.0,
            fill,
        }
    }

    /// Writes an augmented copy of an image of `height` x `width` pixels, with as many channels as
    /// the fill colour has bytes.
    pub(super) fn apply(
        &self,
        image: &[u8],
        [height, width]: [usize; 2],
        rng: &mut Rng,
        into: &mut [u8],
    ) {
        let channels = self.fill.len();
        let down = rng.below(2 * self.pad + 1);
        let right = rng.below(2 * self.pad + 1);
        paste(
            image,
            [height, width],
            [
                self.pad as isize - down as isize,
                self.pad as isize - right as isize,
            ],
            into,
            [height, width],
            &self.fill,
        );
        if self.flip && rng.coin() {
            resize::mirror(into, width, channels);
        }
        if rng.chance(self.erase)
            && let Some(([left, top], [wide, high])) = augment::erased([width, height], rng)
        {
            for row in into.chunks_exact_mut(width * channels).skip(top).take(high) {
                for pixel in row[left * channels..][..wide * channels].chunks_exact_mut(channels) {
                    pixel.copy_from_slice(&self.fill);
                }
            }
        }
    }
}

/// Pastes an image onto a canvas of one colour, `top` rows down and `left` columns to the right.
/// Whatever lies outside the canvas is cut off.
pub(super) fn paste(
    image: &[u8],
    [height, width]: [usize; 2],
    [top, left]: [isize; 2],
    ground: &mut [u8],
    [ground_height, ground_width]: [usize; 2],
    fill: &[u8],
) {
    let channels = fill.len();
    for pixel in ground.chunks_exact_mut(channels) {
        pixel.copy_from_slice(fill);
    }
    // The part of an axis that is on the canvas: where it starts in the image and on the canvas.
    let overlap = |offset: isize, side: usize, ground_side: usize| {
        let skipped = offset.min(0).unsigned_abs();
        let from = offset.max(0).unsigned_abs();
        let length = side
            .saturating_sub(skipped)
            .min(ground_side.saturating_sub(from));
        (skipped, from, length)
    };
    let (skipped_rows, first_row, rows) = overlap(top, height, ground_height);
    let (skipped_columns, first_column, columns) = overlap(left, width, ground_width);
    if columns == 0 {
        return;
    }
    for row in 0..rows {
        let source = ((skipped_rows + row) * width + skipped_columns) * channels;
        let target = ((first_row + row) * ground_width + first_column) * channels;
        ground[target..][..columns * channels]
            .copy_from_slice(&image[source..][..columns * channels]);
    }
}

#[cfg(test)]
mod tests {
    use super::{Rng, ShiftAndFlip, paste};

    #[test]
    fn an_image_is_pasted_where_it_belongs_and_cut_at_the_edges() {
        let image = [1, 2, 3, 4, 5, 6];
        let pasted = |at| {
            let mut ground = [0; 9];
            paste(&image, [2, 3], at, &mut ground, [3, 3], &[9]);
            ground
        };
        assert_eq!(pasted([1, 0]), [9, 9, 9, 1, 2, 3, 4, 5, 6]);
        assert_eq!(pasted([-1, 1]), [9, 4, 5, 9, 9, 9, 9, 9, 9]);
        assert_eq!(pasted([2, -2]), [9, 9, 9, 9, 9, 9, 3, 9, 9]);
        for outside in [[5, 5], [0, 5], [0, -5], [-5, 0], [3, 0]] {
            assert_eq!(pasted(outside), [9; 9]);
        }
    }

    #[test]
    fn all_shifts_and_both_directions_turn_up() {
        let augmentation = ShiftAndFlip {
            pad: 1,
            flip: true,
            erase: 0.0,
            fill: vec![0],
        };
        let image = [1, 2, 3, 4];
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..500 {
            let mut into = [7; 4];
            augmentation.apply(&image, [2, 2], &mut Rng::new(0, 0, index), &mut into);
            seen.insert(into);
        }
        assert_eq!(seen.len(), 18);
        assert!(seen.contains(&image));
        assert!(seen.contains(&[2, 1, 4, 3]));
        assert!(seen.contains(&[0, 0, 0, 1]));
    }

    #[test]
    fn a_rectangle_is_erased_as_often_as_asked() {
        let augmentation = ShiftAndFlip {
            pad: 0,
            flip: false,
            erase: 0.75,
            fill: vec![9, 8],
        };
        let (width, height) = (14, 10);
        let image = vec![1; 2 * width * height];
        let mut count = 0;
        for index in 0..400 {
            let mut into = vec![7; image.len()];
            let mut rng = Rng::new(0, 0, index);
            augmentation.apply(&image, [height, width], &mut rng, &mut into);
            let erased: Vec<_> = (into.chunks_exact(2).enumerate())
                .filter(|(_, pixel)| *pixel != [1, 1])
                .map(|(at, pixel)| {
                    assert_eq!(pixel, [9, 8]);
                    [at % width, at / width]
                })
                .collect();
            if erased.is_empty() {
                continue;
            }
            count += 1;
            // As many as the rectangle around them has.
            let side = |axis: usize| {
                let along = erased.iter().map(|at| at[axis]);
                1 + along.clone().max().unwrap() - along.min().unwrap()
            };
            assert_eq!(side(0) * side(1), erased.len());
            assert!((1..60).contains(&erased.len()), "{}", erased.len());
        }
        assert!((270..330).contains(&count), "{count}");
    }
}

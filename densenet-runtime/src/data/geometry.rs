//! The positions of crops, as torchvision computes them, to the pixel.

use super::Rng;

/// A rectangle of an image's pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// Columns to its left.
    pub left: u32,
    /// Rows above it.
    pub top: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// The random crop of a picture in training, with an area and an aspect ratio in the given ranges
/// (Szegedy et al., 2015; the fb.resnet.torch recipe).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomResizedCrop {
    /// Smallest and largest share of the picture's area.
    pub area: (f64, f64),
    /// Smallest and largest ratio of width to height.
    pub aspect: (f64, f64),
}

impl Default for RandomResizedCrop {
    /// 8% to 100% of the area, 3:4 to 4:3.
    fn default() -> Self {
        Self {
            area: (0.08, 1.0),
            aspect: (3.0 / 4.0, 4.0 / 3.0),
        }
    }
}

impl RandomResizedCrop {
    /// Draws the crop of a picture. Ten sizes are tried; if none fits, it is the largest central
    /// crop with an aspect ratio in the range.
    pub fn draw(&self, width: u32, height: u32, rng: &mut Rng) -> Rect {
        const TRIES: usize = 10;
        (0..TRIES)
            .find_map(|_| {
                let (area, aspect) = (rng.unit(), rng.unit());
                let (w, h) = self.size(width, height, area, aspect)?;
                Some(Rect {
                    top: rng.below((height - h + 1) as usize) as u32,
                    left: rng.below((width - w + 1) as usize) as u32,
                    width: w,
                    height: h,
                })
            })
            .unwrap_or_else(|| self.fallback(width, height))
    }

    /// The size at the given points, in [0, 1), of the two ranges, if it fits into the picture.
    /// Aspect ratios are uniform in their logarithm.
    fn size(&self, width: u32, height: u32, area: f64, aspect: f64) -> Option<(u32, u32)> {
        let (least, most) = self.area;
        let area = f64::from(width) * f64::from(height) * (least + (most - least) * area);
        let (low, high) = (self.aspect.0.ln(), self.aspect.1.ln());
        let aspect = (low + (high - low) * aspect).exp();
        let w = (area * aspect).sqrt().round_ties_even() as u32;
        let h = (area / aspect).sqrt().round_ties_even() as u32;
        ((1..=width).contains(&w) && (1..=height).contains(&h)).then_some((w, h))
    }

    fn fallback(&self, width: u32, height: u32) -> Rect {
        let aspect = f64::from(width) / f64::from(height);
        let (w, h) = if aspect < self.aspect.0 {
            let h = (f64::from(width) / self.aspect.0).round_ties_even();
            (width, (h as u32).min(height))
        } else if aspect > self.aspect.1 {
            let w = (f64::from(height) * self.aspect.1).round_ties_even();
            ((w as u32).min(width), height)
        } else {
            (width, height)
        };
        Rect {
            left: (width - w) / 2,
            top: (height - h) / 2,
            width: w,
            height: h,
        }
    }
}

/// Width and height to which a picture is resized for evaluation, so that its crop has a `share` of
/// the short side: for 224 and 0.875 that becomes 256. It is rounded down, as in timm. For a crop
/// that is not square, the tighter side decides.
pub fn resized(
    width: u32,
    height: u32,
    crop_width: u32,
    crop_height: u32,
    share: f64,
) -> (u32, u32) {
    let margin = |side: u32| (f64::from(side) / share).floor();
    let (least_w, least_h) = (margin(crop_width), margin(crop_height));
    let (w, h) = (f64::from(width), f64::from(height));
    // The long side is truncated, not rounded, as in torchvision.
    if least_w * h >= least_h * w {
        (least_w as u32, (least_w * h / w) as u32)
    } else {
        ((least_h * w / h) as u32, least_h as u32)
    }
}

/// The central crop.
pub fn centre(width: u32, height: u32, crop_width: u32, crop_height: u32) -> Rect {
    let half = |rest: u32| (f64::from(rest) / 2.0).round_ties_even() as u32;
    Rect {
        left: half(width.saturating_sub(crop_width)),
        top: half(height.saturating_sub(crop_height)),
        width: crop_width.min(width),
        height: crop_height.min(height),
    }
}

/// The four corners (top left, top right, bottom left, bottom right) and the centre.
pub fn corners_and_centre(width: u32, height: u32, crop_width: u32, crop_height: u32) -> [Rect; 5] {
    let middle = centre(width, height, crop_width, crop_height);
    let right = width - middle.width;
    let bottom = height - middle.height;
    [
        (0, 0),
        (right, 0),
        (0, bottom),
        (right, bottom),
        (middle.left, middle.top),
    ]
    .map(|(left, top)| Rect {
        left,
        top,
        ..middle
    })
}

#[cfg(test)]
mod tests {
    use super::{RandomResizedCrop, Rect, Rng, centre, corners_and_centre, resized};

    /// Values of torchvision for given uniform numbers (`scripts/golden_data.py`).
    #[test]
    fn random_crops_have_torchvisions_sizes_and_fallback() {
        let crop = RandomResizedCrop::default();
        let (mut drawn, mut fallen_back) = (0, 0);
        for row in include_str!("../../tests/data/golden/crops.csv")
            .lines()
            .skip(1)
        {
            let fields: Vec<f64> = row.split(',').map(|field| field.parse().unwrap()).collect();
            let whole = |at: usize| fields[at] as u32;
            let (width, height) = (whole(0), whole(1));
            let expected = Rect {
                left: whole(4),
                top: whole(5),
                width: whole(6),
                height: whole(7),
            };
            let size = crop.size(width, height, fields[2], fields[3]);
            if whole(8) == 1 {
                assert_eq!(size, None, "{row}");
                assert_eq!(crop.fallback(width, height), expected, "{row}");
                fallen_back += 1;
            } else {
                assert_eq!(size, Some((expected.width, expected.height)), "{row}");
                drawn += 1;
            }
        }
        assert!(drawn > 20 && fallen_back > 20, "{drawn}, {fallen_back}");
    }

    #[test]
    fn random_crops_lie_within_the_picture_and_reach_its_edges() {
        let crop = RandomResizedCrop::default();
        let mut edges = [0; 4];
        for index in 0..20_000 {
            let at = crop.draw(20, 15, &mut Rng::new(0, 0, index));
            assert!(
                at.left + at.width <= 20 && at.top + at.height <= 15,
                "{at:?}"
            );
            for (count, meets) in edges.iter_mut().zip([
                at.left == 0,
                at.top == 0,
                at.left + at.width == 20,
                at.top + at.height == 15,
            ]) {
                *count += usize::from(meets);
            }
        }
        assert!(edges.iter().all(|&count| count > 1000), "{edges:?}");
    }

    #[test]
    fn evaluation_at_224_resizes_the_short_side_to_256() {
        let resized = |w, h, crop_w, crop_h| resized(w, h, crop_w, crop_h, 0.875);
        assert_eq!(resized(500, 375, 224, 224), (341, 256));
        assert_eq!(resized(375, 500, 224, 224), (256, 341));
        assert_eq!(resized(256, 256, 224, 224), (256, 256));
        assert_eq!(resized(10, 1000, 224, 224), (256, 25_600));
        // Twice as wide, like the picture: both sides have the same scale.
        assert_eq!(resized(400, 200, 448, 224), (512, 256));
        assert_eq!(resized(400, 400, 448, 224), (512, 512));
    }

    /// What timm's `transforms_imagenet_eval` resizes to.
    #[test]
    fn the_crops_share_is_timms_crop_pct() {
        for (side, share, expected) in [
            (224, 0.9, 248),
            (224, 0.95, 235),
            (288, 0.95, 303),
            (224, 1.0, 224),
            (32, 0.875, 36),
        ] {
            assert_eq!(resized(500, 500, side, side, share), (expected, expected));
        }
    }

    #[test]
    fn the_centre_is_rounded_as_in_torchvision() {
        let left = |width| centre(width, 256, 224, 224).left;
        assert_eq!(
            [left(341), left(256), left(255), left(257)],
            [58, 16, 16, 16]
        );
    }

    #[test]
    fn five_crops_are_the_corners_and_the_centre() {
        let places = corners_and_centre(10, 8, 4, 4).map(|at| (at.left, at.top));
        assert_eq!(places, [(0, 0), (6, 0), (0, 4), (6, 4), (3, 2)]);
    }
}

//! Images of a batch mixed with each other: mixup and cutmix.

use super::{LoadedPixels, LoadedTargets};
use crate::data::{DataError, Rng};

/// How the images of a batch, and their targets, are mixed in training. Each image is mixed with
/// the one before it, the first with the last, as in torchvision; the share of the image itself is
/// drawn once for a batch, from Beta(alpha, alpha).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mix {
    /// Alpha of mixup, which blends whole images (Zhang et al., 2017); 0 for none.
    pub mixup: f64,
    /// Alpha of cutmix, which pastes a rectangle of the other image (Yun et al., 2019); 0 for none.
    /// If mixup is on as well, each batch has one or the other, half of the time.
    pub cutmix: f64,
}

impl Mix {
    /// Whether nothing is mixed.
    pub fn is_none(&self) -> bool {
        self.mixup == 0.0 && self.cutmix == 0.0
    }

    pub(super) fn check(&self) -> Result<(), DataError> {
        for (what, alpha) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            if !(0.0..=100.0).contains(&alpha) {
                return Err(DataError::Options(format!(
                    "alpha of {what} must be from 0 (none) to 100, found {alpha}"
                )));
            }
        }
        Ok(())
    }

    pub(super) fn draw(&self, rng: &mut Rng, [height, width]: [usize; 2]) -> Mixing {
        let is_mixup = match (self.mixup > 0.0, self.cutmix > 0.0) {
            (true, true) => rng.coin(),
            (is_mixup, _) => is_mixup,
        };
        let alpha = if is_mixup { self.mixup } else { self.cutmix };
        let share = beta(alpha, rng);
        if is_mixup {
            return Mixing::Blend(share as f32);
        }
        let (x, y) = (rng.below(width), rng.below(height));
        Mixing::paste([width, height], [x, y], share)
    }
}

/// What is done to a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mixing {
    /// The share of each image itself.
    Blend(f32),
    /// A rectangle, and the share of the image that stays.
    Paste {
        left: usize,
        top: usize,
        width: usize,
        height: usize,
        share: f32,
    },
}

impl Mixing {
    /// The rectangle around a point, as far as it is inside the image.
    fn paste([width, height]: [usize; 2], [x, y]: [usize; 2], share: f64) -> Self {
        let half = 0.5 * (1.0 - share).max(0.0).sqrt();
        let span = |at: usize, side: usize| {
            let half = (half * side as f64) as usize;
            let from = at.saturating_sub(half);
            (from, (at + half).min(side) - from)
        };
        let ((left, across), (top, down)) = (span(x, width), span(y, height));
        let share = 1.0 - (across * down) as f64 / (width * height).max(1) as f64;
        Self::Paste {
            left,
            top,
            width: across,
            height: down,
            share: share as f32,
        }
    }

    fn share(self) -> f32 {
        match self {
            Self::Blend(share) | Self::Paste { share, .. } => share,
        }
    }

    /// Mixes images of a shape (channels, height, width).
    pub(super) fn apply(self, pixels: &mut LoadedPixels, shape: [usize; 3]) {
        match (self, pixels) {
            (Self::Blend(share), LoadedPixels::Floats(values)) => {
                with_those_before(values, shape.iter().product(), |own, other| {
                    for (own, other) in own.iter_mut().zip(other) {
                        *own = *own * share + other * (1.0 - share);
                    }
                });
            }
            // A loader that blends has floats.
            (Self::Blend(_), LoadedPixels::Bytes(_)) => {}
            (paste, LoadedPixels::Bytes(bytes)) => paste.put(bytes, shape),
            (paste, LoadedPixels::Floats(values)) => paste.put(values, shape),
        }
    }

    /// Pastes the rectangle.
    fn put<T: Copy>(self, values: &mut [T], [channels, rows, columns]: [usize; 3]) {
        let Self::Paste {
            left,
            top,
            width,
            height,
            ..
        } = self
        else {
            return;
        };
        let part = left * channels..(left + width) * channels;
        with_those_before(values, channels * rows * columns, |own, other| {
            let row = columns * channels;
            let lines = own.chunks_exact_mut(row).zip(other.chunks_exact(row));
            for (own, other) in lines.skip(top).take(height) {
                own[part.clone()].copy_from_slice(&other[part.clone()]);
            }
        });
    }

    /// Mixes targets, which become probabilities of this many classes.
    pub(super) fn targets(self, targets: LoadedTargets, classes: usize) -> LoadedTargets {
        let share = self.share();
        let blend = |mut rows: Vec<f32>| {
            with_those_before(&mut rows, classes, |own, other| {
                for (own, other) in own.iter_mut().zip(other) {
                    *own = *own * share + other * (1.0 - share);
                }
            });
            rows
        };
        match targets {
            LoadedTargets::Classes(labels) => {
                let mut rows = vec![0.0; labels.len() * classes];
                for (row, label) in rows.chunks_exact_mut(classes.max(1)).zip(labels) {
                    if let Some(probability) = row.get_mut(label as usize) {
                        *probability = 1.0;
                    }
                }
                LoadedTargets::Probabilities(blend(rows))
            }
            LoadedTargets::Probabilities(rows) => LoadedTargets::Probabilities(blend(rows)),
            // A target that is unknown for either image is unknown for the mix.
            LoadedTargets::Independent(rows) => LoadedTargets::Independent(blend(rows)),
        }
    }
}

/// Passes on each row with the original of the one before it, the first one with the last.
fn with_those_before<T: Copy>(
    values: &mut [T],
    row: usize,
    mut change: impl FnMut(&mut [T], &[T]),
) {
    let count = values.len() / row.max(1);
    if count < 2 {
        return;
    }
    let last = values[(count - 1) * row..count * row].to_vec();
    for at in (1..count).rev() {
        let (before, own) = values.split_at_mut(at * row);
        change(&mut own[..row], &before[(at - 1) * row..]);
    }
    change(&mut values[..row], &last);
}

/// A number of Beta(alpha, alpha).
fn beta(alpha: f64, rng: &mut Rng) -> f64 {
    let (one, other) = (gamma(alpha, rng), gamma(alpha, rng));
    let share = one / (one + other);
    // Both may underflow; then the result is one end or the other.
    if share.is_nan() {
        return f64::from(u8::from(rng.coin()));
    }
    share
}

/// A number of Gamma(alpha, 1) (Marsaglia and Tsang, 2000).
fn gamma(alpha: f64, rng: &mut Rng) -> f64 {
    if alpha < 1.0 {
        let boost = (1.0 - rng.unit()).powf(1.0 / alpha);
        return gamma(alpha + 1.0, rng) * boost;
    }
    let d = alpha - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        // A normal number (Box and Muller).
        let radius = (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
        let x = radius * (std::f64::consts::TAU * rng.unit()).cos();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        share: f64,
        /// The rectangle's centre; `None` for mixup.
        at: Option<[usize; 2]>,
        images: Vec<f32>,
        labels: Vec<u32>,
        mixed: Vec<f32>,
        targets: Vec<f32>,
    }

    /// Batches of 3 images of 2 x 5 x 6, of 4 classes (`scripts/golden_augmentation.py`).
    #[test]
    fn images_and_targets_are_mixed_as_by_torchvision() {
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../../tests/data/golden/mixed.json")).unwrap();
        let shape = [2, 5, 6];
        let agree = |found: &[f32], expected: &[f32]| {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{found}, {expected}");
            }
        };
        assert!(cases.len() > 6);
        for case in cases {
            let mixing = match case.at {
                None => Mixing::Blend(case.share as f32),
                Some(at) => Mixing::paste([6, 5], at, case.share),
            };
            let mut pixels = LoadedPixels::Floats(case.images.clone());
            mixing.apply(&mut pixels, shape);
            agree(pixels.floats().unwrap(), &case.mixed);
            let targets = mixing.targets(LoadedTargets::Classes(case.labels), 4);
            let LoadedTargets::Probabilities(rows) = targets else {
                panic!("no probabilities");
            };
            agree(&rows, &case.targets);
            if case.at.is_some() {
                // Bytes are pasted alike.
                let byte = |value: &f32| (value * 255.0).round() as u8;
                let mut pixels = LoadedPixels::Bytes(case.images.iter().map(byte).collect());
                mixing.apply(&mut pixels, shape);
                let expected: Vec<u8> = case.mixed.iter().map(byte).collect();
                assert_eq!(pixels.bytes().unwrap(), expected);
            }
        }
    }

    #[test]
    fn what_is_unknown_of_either_image_is_unknown_of_both() {
        let targets = LoadedTargets::Independent(vec![1.0, f32::NAN, 0.0, 1.0]);
        let LoadedTargets::Independent(rows) = Mixing::Blend(0.75).targets(targets, 2) else {
            panic!("the kind has changed");
        };
        assert_eq!((rows[0], rows[2]), (0.75, 0.25));
        assert!(rows[1].is_nan() && rows[3].is_nan());
    }

    #[test]
    fn shares_have_betas_mean_and_variance() {
        for alpha in [0.1, 0.4, 1.0, 3.0] {
            let mut rng = Rng::new(1, 2, 3);
            let numbers: Vec<f64> = (0..20_000).map(|_| beta(alpha, &mut rng)).collect();
            assert!(numbers.iter().all(|share| (0.0..=1.0).contains(share)));
            let count = numbers.len() as f64;
            let mean = numbers.iter().sum::<f64>() / count;
            let variance = numbers.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
            let expected = 0.25 / (2.0 * alpha + 1.0);
            assert!((mean - 0.5).abs() < 0.015, "{alpha}: {mean}");
            assert!((variance - expected).abs() < 0.01, "{alpha}: {variance}");
        }
        // So small that gammas are 0.
        let mut rng = Rng::new(1, 2, 3);
        assert!((0..100).all(|_| (0.0..=1.0).contains(&beta(1e-4, &mut rng))));
    }
}

//! How bytes become a network's input.

use std::fmt;

use crate::Pixels;

/// The network sees `(byte / 255 - mean) / std` of each channel.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Normalization {
    /// Mean of each channel, of pixels in [0, 1].
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, of pixels in [0, 1].
    pub std: Vec<f32>,
}

impl Normalization {
    /// ImageNet's, as used by fb.resnet.torch, torchvision and all published weights.
    pub fn imagenet() -> Self {
        Self {
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }
    }

    /// The difference from another one, in words; `None` if they are equal.
    pub fn difference(&self, (ours_is, theirs_is): (&str, &str), other: &Self) -> Option<String> {
        (self != other).then(|| format!("{ours_is} has {self}, but {theirs_is} has {other}"))
    }

    /// Why this normalisation is invalid, if it is.
    pub(crate) fn problem(&self) -> Option<String> {
        let Self { mean, std } = self;
        if mean.is_empty() || mean.len() != std.len() {
            return Some(format!(
                "it has {} means and {} standard deviations",
                mean.len(),
                std.len()
            ));
        }
        let is_wrong = |std: &&f32| !(std.is_finite() && **std > 0.0);
        if let Some(wrong) = std.iter().find(is_wrong) {
            return Some(format!("{wrong} is not a standard deviation"));
        }
        let wrong = mean.iter().find(|mean| !mean.is_finite())?;
        Some(format!("{wrong} is not a mean"))
    }

    /// For grey images: the means over ImageNet's channels, as in timm.
    pub fn grey() -> Self {
        Self {
            mean: vec![0.449],
            std: vec![0.226],
        }
    }

    /// The usual one for a number of channels: [grey](Self::grey) for 1, [ImageNet's](Self::imagenet)
    /// for 3; [none](Self::none) for others.
    pub fn usual(channels: usize) -> Self {
        match channels {
            1 => Self::grey(),
            3 => Self::imagenet(),
            _ => Self::none(channels),
        }
    }

    /// Images of floats in [0, 1] as an executor takes them: images x height x width x channels.
    pub fn floats<'a>(&'a self, values: &'a [f32]) -> Pixels<'a> {
        Pixels::NhwcFloats {
            values,
            mean: &self.mean,
            std: &self.std,
        }
    }

    /// The bytes of images as an executor takes them: images x height x width x channels.
    pub fn pixels<'a>(&'a self, bytes: &'a [u8]) -> Pixels<'a> {
        Pixels::Nhwc {
            bytes,
            mean: &self.mean,
            std: &self.std,
        }
    }

    /// Leaves pixels in [0, 1]: the paper's preprocessing of SVHN.
    pub fn none(channels: usize) -> Self {
        Self {
            mean: vec![0.0; channels],
            std: vec![1.0; channels],
        }
    }

    /// Normalises images, given as bytes with channels innermost, by their own mean and standard
    /// deviation: the paper's preprocessing of CIFAR. A channel that never varies gets a standard
    /// deviation of 1.
    pub fn of(pixels: &[u8], channels: usize) -> Self {
        let mut counts = vec![[0_u64; 256]; channels];
        for pixel in pixels.chunks_exact(channels.max(1)) {
            for (count, &byte) in counts.iter_mut().zip(pixel) {
                count[usize::from(byte)] += 1;
            }
        }
        let (mean, std) = counts.iter().map(moments).unzip();
        Self { mean, std }
    }
}

impl fmt::Display for Normalization {
    /// `mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |values: &[f32]| {
            let values: Vec<_> = values.iter().map(ToString::to_string).collect();
            values.join(", ")
        };
        write!(
            f,
            "mean {} and std {}",
            listed(&self.mean),
            listed(&self.std)
        )
    }
}

/// Mean and standard deviation of a channel, from how often it has each value. The sums are exact,
/// since they are of integers.
fn moments(counts: &[u64; 256]) -> (f32, f32) {
    let sum_of = |power: u32| -> f64 {
        (0_u64..)
            .zip(counts)
            .map(|(value, &count)| value.pow(power) * count)
            .sum::<u64>() as f64
    };
    let count = sum_of(0).max(1.0);
    let mean = sum_of(1) / count;
    let variance = sum_of(2) / count - mean * mean;
    let std = if variance > 0.0 {
        variance.sqrt() / 255.0
    } else {
        1.0
    };
    ((mean / 255.0) as f32, std as f32)
}

#[cfg(test)]
mod tests {
    use super::Normalization;

    #[test]
    fn the_moments_of_each_channel_are_its_own() {
        let found = Normalization::of(&[0, 51, 255, 51, 0, 51, 255, 51], 2);
        assert_eq!(found.mean, [0.5, 0.2]);
        assert_eq!(found.std, [0.5, 1.0]);
    }
}

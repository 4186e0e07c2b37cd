//! How bytes become the numbers that a network sees.

/// The network sees `(byte / 255 - mean) / deviation` of each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// Mean of each channel, of pixels in [0, 1].
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, of pixels in [0, 1].
    pub deviation: Vec<f32>,
}

impl Normalization {
    /// ImageNet's, as fb.resnet.torch, torchvision and all published weights use it.
    pub fn imagenet() -> Self {
        Self {
            mean: vec![0.485, 0.456, 0.406],
            deviation: vec![0.229, 0.224, 0.225],
        }
    }

    /// Pixels in [0, 1] as they are: the paper's preprocessing of SVHN.
    pub fn none(channels: usize) -> Self {
        Self {
            mean: vec![0.0; channels],
            deviation: vec![1.0; channels],
        }
    }

    /// Of images given as bytes, channels innermost: the paper's preprocessing of CIFAR.
    /// A channel that never varies is left with a deviation of 1.
    pub fn of(pixels: &[u8], channels: usize) -> Self {
        let mut counts = vec![[0_u64; 256]; channels];
        for pixel in pixels.chunks_exact(channels.max(1)) {
            for (count, &byte) in counts.iter_mut().zip(pixel) {
                count[usize::from(byte)] += 1;
            }
        }
        let (mean, deviation) = counts.iter().map(moments).unzip();
        Self { mean, deviation }
    }
}

/// Mean and deviation of a channel from how often it has each value. Exact, as it adds integers.
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
    let deviation = if variance > 0.0 {
        variance.sqrt() / 255.0
    } else {
        1.0
    };
    ((mean / 255.0) as f32, deviation as f32)
}

#[cfg(test)]
mod tests {
    use super::Normalization;

    #[test]
    fn the_moments_of_each_channel_are_its_own() {
        let found = Normalization::of(&[0, 51, 255, 51, 0, 51, 255, 51], 2);
        assert_eq!(found.mean, [0.5, 0.2]);
        assert_eq!(found.deviation, [0.5, 1.0]);
    }
}

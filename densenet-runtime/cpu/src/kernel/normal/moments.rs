//! Mean and variance of channels, which threads measure tile by tile.

use densenet_plan::norm::EPSILON;

/// A batch's statistics of some channels.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Biased variance of each channel.
    pub variance: Vec<f32>,
    /// `1 / sqrt(variance + epsilon)`.
    pub inverse: Vec<f32>,
}

impl Statistics {
    pub fn new(channels: usize) -> Self {
        Self {
            mean: vec![0.0; channels],
            variance: vec![0.0; channels],
            inverse: vec![0.0; channels],
        }
    }

    /// Sets the channels from `first` on, from the measurements of the threads.
    pub fn merge<'a>(&mut self, first: usize, parts: impl Iterator<Item = &'a Moments> + Clone) {
        let channels = parts.clone().map(|part| part.mean.len()).max().unwrap_or(0);
        for c in 0..channels {
            let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
            for part in parts.clone().filter(|part| part.count > 0.0) {
                merge(
                    (&mut count, &mut mean, &mut squares),
                    (part.count, part.mean[c], part.squares[c]),
                );
            }
            let variance = squares / f64::max(count, 1.0);
            self.mean[first + c] = mean as f32;
            self.variance[first + c] = variance as f32;
            self.inverse[first + c] = (1.0 / (variance + EPSILON).sqrt()) as f32;
        }
    }
}

/// Chan's rule: merges count, mean and sum of squared deviations of two samples.
fn merge(into: (&mut f64, &mut f64, &mut f64), (count, mean, squares): (f64, f64, f64)) {
    let total = *into.0 + count;
    let delta = mean - *into.1;
    *into.1 += delta * count / total;
    *into.2 += squares + delta * delta * *into.0 * count / total;
    *into.0 = total;
}

/// What one thread has measured of some channels: tile by tile, merged by Chan's rule, so that a
/// mean far from zero loses no digits.
#[derive(Debug, Default)]
pub struct Moments {
    count: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
    tile_mean: Vec<f32>,
    tile_squares: Vec<f32>,
}

impl Moments {
    /// Starts over with this many channels.
    pub fn reset(&mut self, channels: usize) {
        self.count = 0.0;
        for values in [&mut self.mean, &mut self.squares] {
            values.clear();
            values.resize(channels, 0.0);
        }
        for values in [&mut self.tile_mean, &mut self.tile_squares] {
            values.clear();
            values.resize(channels, 0.0);
        }
    }

    /// Mean and sum of squared deviations of the current tile, to be filled in.
    #[inline(always)]
    pub fn tile(&mut self) -> (&mut [f32], &mut [f32]) {
        (&mut self.tile_mean, &mut self.tile_squares)
    }

    /// Adds the current tile, of `count` pixels.
    pub fn add_tile(&mut self, count: usize) {
        let count = count as f64;
        let total = self.count + count;
        let tile = self.tile_mean.iter().zip(&self.tile_squares);
        for ((mean, squares), tile) in self.mean.iter_mut().zip(&mut self.squares).zip(tile) {
            let (&tile_mean, &tile_squares) = tile;
            let delta = f64::from(tile_mean) - *mean;
            *mean += delta * count / total;
            *squares += f64::from(tile_squares) + delta * delta * self.count * count / total;
        }
        self.count = total;
    }
}

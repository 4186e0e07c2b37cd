//! Batch normalisation.

use densenet_runtime::nn::{EPSILON, MOMENTUM};
use densenet_runtime::plan::NormTensors;
use densenet_runtime::weights::State;

use super::maps::Maps;

/// Statistics of channels.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    pub mean: Vec<f32>,
    pub variance: Vec<f32>,
    pub inverse: Vec<f32>,
}

impl Statistics {
    pub fn of(maps: &Maps) -> Self {
        let pixels = maps.pixels() as f64;
        let mut all = Self::default();
        for c in 0..maps.channels {
            let values = maps
                .values
                .iter()
                .skip(c)
                .step_by(maps.channels)
                .map(|&v| f64::from(v));
            let mean = values.clone().sum::<f64>() / pixels;
            let variance = values.map(|v| (v - mean).powi(2)).sum::<f64>() / pixels;
            all.mean.push(mean as f32);
            all.variance.push(variance as f32);
            all.inverse.push((1.0 / (variance + EPSILON).sqrt()) as f32);
        }
        all
    }
}

/// A BN: the positions of its parameters, and the latest pass.
#[derive(Clone, Debug)]
pub struct Norm {
    pub channels: usize,
    pub gamma: usize,
    pub beta: usize,
    running: usize,
    pub statistics: Statistics,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Norm {
    /// A BN of the map.
    pub fn new(at: NormTensors) -> Self {
        Self {
            channels: at.channels(),
            gamma: at.scale.start,
            beta: at.bias.start,
            running: at.mean.start,
            statistics: Statistics::default(),
            scale: Vec::new(),
            shift: Vec::new(),
        }
    }

    /// The multiply-add for some maps: of their statistics, which move the running ones, or of
    /// these.
    pub fn prepare(&mut self, maps: &Maps, state: &mut State, training: bool) {
        self.statistics = Statistics::of(maps);
        let pixels = maps.pixels();
        self.scale.clear();
        self.shift.clear();
        for c in 0..self.channels {
            let (gamma, beta) = (
                state.parameters[self.gamma + c],
                state.parameters[self.beta + c],
            );
            let (at_mean, at_variance) = (self.running + c, self.running + self.channels + c);
            let (mean, scale) = if training {
                let moving = MOMENTUM as f32;
                let unbiased = pixels as f32 / (pixels.max(2) - 1) as f32;
                let (mean, variance) = (self.statistics.mean[c], self.statistics.variance[c]);
                state.running[at_mean] += moving * (mean - state.running[at_mean]);
                state.running[at_variance] +=
                    moving * (variance * unbiased - state.running[at_variance]);
                (mean, gamma * self.statistics.inverse[c])
            } else {
                let std = (state.running[at_variance] + EPSILON as f32).sqrt();
                (state.running[at_mean], gamma / std)
            };
            self.scale.push(scale);
            self.shift.push(beta - mean * scale);
        }
    }

    /// What ReLU sees.
    pub fn before(&self, c: usize, x: f32) -> f32 {
        x.mul_add(self.scale[c], self.shift[c])
    }

    /// Takes the gradient of the ReLU's output: masks it, adds to the gradients of gamma and beta,
    /// and returns it with two sums for each channel: its own, and that of its product with the
    /// normalised value.
    pub fn mask(&self, maps: &Maps, d: &[f32], gradients: &mut [f32]) -> (Vec<f32>, Vec<[f64; 2]>) {
        let mut sums = vec![[0.0f64; 2]; self.channels];
        let mut masked = Vec::with_capacity(d.len());
        for (i, (&x, &d)) in maps.values.iter().zip(d).enumerate() {
            let c = i % self.channels;
            let open = self.before(c, x) > 0.0;
            let d = if open { d } else { 0.0 };
            sums[c][0] += f64::from(d);
            sums[c][1] += f64::from(d) * f64::from(x - self.statistics.mean[c]);
            masked.push(d);
        }
        for (c, sums) in sums.iter_mut().enumerate() {
            sums[1] *= f64::from(self.statistics.inverse[c]);
            gradients[self.beta + c] += sums[0] as f32;
            gradients[self.gamma + c] += sums[1] as f32;
        }
        (masked, sums)
    }
}

/// The gradient of a normalised value, after BN; `gamma` is 1 where `g` and the sums have it.
pub fn undo(
    statistics: &Statistics,
    c: usize,
    gamma: f32,
    g: f32,
    x: f32,
    sums: [f64; 2],
    pixels: usize,
) -> f32 {
    let inverse = statistics.inverse[c];
    let share = 1.0 / pixels as f32;
    let slope = -inverse * inverse * sums[1] as f32 * share;
    let shift = -inverse * sums[0] as f32 * share;
    g.mul_add(
        inverse * gamma,
        (x - statistics.mean[c]).mul_add(slope, shift),
    )
}

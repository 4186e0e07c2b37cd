//! BN as a multiply-add.

use std::ops::Range;

use super::Statistics;
use densenet_plan::NormTensors;
use densenet_plan::norm::{EPSILON, MOMENTUM};

/// How BN normalises, with an arena of running statistics.
pub enum Norms<'a> {
    /// With the batch's statistics, which update the running ones.
    Batch(&'a mut [f32]),
    /// With the running statistics.
    Running(&'a [f32]),
}

/// BN of some channels as one multiply-add: `scale * x + shift`.
#[derive(Debug, Default)]
pub struct Affine {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
    /// The gamma of a frozen BN in the backward pass ([`Norm::of_running`]).
    gamma: Vec<f32>,
}

impl Affine {
    /// BN from a mean and an inverse deviation.
    pub fn set(&mut self, norm: &NormWeights<'_>, mean: &[f32], inverse: &[f32]) {
        self.scale.clear();
        self.shift.clear();
        for (((gamma, beta), mean), inverse) in
            norm.scale.iter().zip(norm.bias).zip(mean).zip(inverse)
        {
            let scale = gamma * inverse;
            self.scale.push(scale);
            self.shift.push(beta - mean * scale);
        }
    }

    /// Prepares the BN of a consumer, whose tensors are `tensors`. Depending on `norms`, it uses
    /// the batch's statistics over `pixels`, which update the running ones, or the running ones.
    pub fn prepare(
        &mut self,
        parameters: &[f32],
        tensors: &NormTensors,
        statistics: &Statistics,
        norms: Norms<'_>,
        pixels: usize,
    ) {
        let norm = &NormWeights::of(parameters, tensors);
        let channels = tensors.channels();
        match norms {
            Norms::Batch(running) => {
                let Statistics {
                    mean,
                    variance,
                    inverse,
                } = statistics;
                self.set(norm, &mean[..channels], &inverse[..channels]);
                let running = &mut running[tensors.running()];
                update_running(running, &mean[..channels], &variance[..channels], pixels);
            }
            Norms::Running(running) => {
                self.set_running(norm, &running[tensors.running()]);
            }
        }
    }

    /// BN from running statistics.
    fn set_running(&mut self, norm: &NormWeights<'_>, running: &[f32]) {
        let (mean, variance) = running.split_at(running.len() / 2);
        self.scale.clear();
        self.shift.clear();
        for (((gamma, beta), mean), variance) in
            norm.scale.iter().zip(norm.bias).zip(mean).zip(variance)
        {
            let scale = gamma / (variance + EPSILON as f32).sqrt();
            self.scale.push(scale);
            self.shift.push(beta - mean * scale);
        }
    }
}

/// Gamma and beta of a BN.
#[derive(Clone, Copy, Debug)]
pub struct NormWeights<'a> {
    pub scale: &'a [f32],
    pub bias: &'a [f32],
}

impl<'a> NormWeights<'a> {
    /// Gamma and beta of the BN whose tensors are given.
    pub fn of(parameters: &'a [f32], tensors: &NormTensors) -> Self {
        Self {
            scale: tensors.scale.of(parameters),
            bias: tensors.bias.of(parameters),
        }
    }
}

/// Moves running statistics (means, then variances) towards those of a batch.
fn update_running(running: &mut [f32], mean: &[f32], variance: &[f32], count: usize) {
    let (means, variances) = running.split_at_mut(running.len() / 2);
    let momentum = MOMENTUM as f32;
    let unbiased = count as f32 / (count.max(2) - 1) as f32;
    for (running, mean) in means.iter_mut().zip(mean) {
        *running += momentum * (mean - *running);
    }
    for (running, variance) in variances.iter_mut().zip(variance) {
        *running += momentum * (variance * unbiased - *running);
    }
}

/// A BN in the backward pass: turns a gradient after the ReLU into one before the BN.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    pub affine: &'a Affine,
    pub gamma: &'a [f32],
    pub mean: &'a [f32],
    pub inverse: &'a [f32],
}

impl<'a> Norm<'a> {
    /// A BN with a batch's statistics; its multiply-add is computed into `affine`.
    pub fn of_batch(
        affine: &'a mut Affine,
        weights: NormWeights<'a>,
        statistics: &'a Statistics,
    ) -> Self {
        affine.set(&weights, &statistics.mean, &statistics.inverse);
        Self {
            affine,
            gamma: weights.scale,
            mean: &statistics.mean,
            inverse: &statistics.inverse,
        }
    }

    /// A frozen BN, which normalised with its running statistics. All gradients after the
    /// normalisation are multiplied by the batch's inverse deviation later, so its gamma makes up
    /// for that.
    pub fn of_running(
        affine: &'a mut Affine,
        weights: NormWeights<'a>,
        running: &[f32],
        statistics: &'a Statistics,
    ) -> Self {
        affine.set_running(&weights, running);
        let Affine { scale, gamma, .. } = affine;
        let factors = scale.iter().zip(&statistics.inverse);
        gamma.clear();
        gamma.extend(factors.map(|(scale, inverse)| scale / inverse));
        let affine = &*affine;
        Self {
            affine,
            gamma: &affine.gamma,
            mean: &statistics.mean,
            inverse: &statistics.inverse,
        }
    }

    /// Some of the channels.
    pub fn channels(&self, range: Range<usize>) -> NormSlice<'a> {
        NormSlice {
            scale: &self.affine.scale[range.clone()],
            shift: &self.affine.shift[range.clone()],
            gamma: &self.gamma[range.clone()],
            mean: &self.mean[range],
        }
    }
}

/// Some channels of a [`Norm`].
#[derive(Clone, Copy, Debug)]
pub struct NormSlice<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub gamma: &'a [f32],
    pub mean: &'a [f32],
}

/// ReLU that lets NaN through.
#[inline(always)]
pub fn relu(z: f32) -> f32 {
    if z < 0.0 { 0.0 } else { z }
}

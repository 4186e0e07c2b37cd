//! The statistics of the images of several batches together, for precise BN.

use std::ops::Range;

use crate::plan::Plan;
use crate::plan::norm::MOMENTUM;

/// The mean and variance of each channel over all images of some batches, each of them normalised
/// with its own statistics.
///
/// With `m` and `v` a batch's mean and biased variance, averages over the batches, weighted by their
/// images, give those of all: `mean = E[m]`, `variance = E[v + m^2] - mean^2`.
pub(super) struct Population {
    /// For each BN: the positions of its means and variances, and the pixels of an image.
    norms: Vec<(Range<usize>, Range<usize>, usize)>,
    /// Images times `m`, and images times `v + m^2`, where running statistics have means and
    /// variances; then the images.
    sums: Vec<f64>,
}

/// The factor from a biased variance of `count` values to an unbiased one.
fn unbiased(count: f64) -> f64 {
    let count = count.max(2.0);
    count / (count - 1.0)
}

impl Population {
    pub(super) fn new(plan: &Plan) -> Self {
        let norms = plan.norms().into_iter();
        Self {
            norms: norms
                .map(|(norm, pixels)| (norm.mean.range(), norm.variance.range(), pixels))
                .collect(),
            sums: vec![0.0; plan.running_count() + 1],
        }
    }

    /// Adds a batch. `moved` are running statistics that started as zeros, after this batch.
    pub(super) fn add(&mut self, moved: &[f32], images: usize) {
        let (sums, weight) = (&mut self.sums, images as f64);
        for (means, variances, pixels) in &self.norms {
            let biased = 1.0 / unbiased((images * pixels) as f64);
            for (mean, variance) in means.clone().zip(variances.clone()) {
                let m = f64::from(moved[mean]) / MOMENTUM;
                let v = f64::from(moved[variance]) / MOMENTUM * biased;
                sums[mean] += weight * m;
                sums[variance] += weight * (v + m * m);
            }
        }
        if let Some(all) = sums.last_mut() {
            *all += weight;
        }
    }

    /// The numbers that ranks add up.
    pub(super) fn sums(&mut self) -> &mut [f64] {
        &mut self.sums
    }

    /// The statistics of all, as running statistics.
    pub(super) fn statistics(&self) -> Vec<f32> {
        let images = self.sums.last().copied().unwrap_or_default();
        let mut statistics = vec![0.0; self.sums.len() - 1];
        for (means, variances, pixels) in &self.norms {
            let unbiased = unbiased(images * *pixels as f64);
            for (mean, variance) in means.clone().zip(variances.clone()) {
                let m = self.sums[mean] / images;
                // For a constant channel, rounding may give slightly less than 0; NaN stays.
                let v = self.sums[variance] / images - m * m;
                let v = if v < 0.0 { 0.0 } else { v };
                statistics[mean] = m as f32;
                statistics[variance] = (v * unbiased) as f32;
            }
        }
        statistics
    }
}

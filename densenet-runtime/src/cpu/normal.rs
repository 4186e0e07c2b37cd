//! Batch normalisation: statistics once for each channel, one multiply-add for each consumer.

use super::simd::Simd;
use crate::nn::{EPSILON, MOMENTUM};

/// A batch's statistics of some channels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statistics {
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

    /// Sets the channels from `first` on from what threads have measured.
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

/// What one thread has measured of some channels: tile by tile, merged by Chan's rule, so that
/// a mean far from zero costs no digits.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    count: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
    tile_mean: Vec<f32>,
    tile_squares: Vec<f32>,
}

impl Moments {
    /// Starts over, with this many channels.
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

    /// Adds rows of values, each of as many channels as [`Moments::reset`] was told.
    #[inline(always)]
    pub fn add<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]> + Clone) {
        let channels = self.mean.len();
        let count = rows.clone().count();
        if count == 0 {
            return;
        }
        let mean = &mut self.tile_mean[..channels];
        mean.fill(0.0);
        for row in rows.clone() {
            for (sum, &value) in mean.iter_mut().zip(row) {
                *sum += value;
            }
        }
        let share = 1.0 / count as f32;
        mean.iter_mut().for_each(|sum| *sum *= share);
        let squares = &mut self.tile_squares[..channels];
        squares.fill(0.0);
        for row in rows {
            for ((square, &mean), &value) in squares.iter_mut().zip(&*mean).zip(row) {
                *square += (value - mean) * (value - mean);
            }
        }
        let count = count as f64;
        let total = self.count + count;
        for c in 0..channels {
            let mut sum = self.count;
            merge(
                (&mut sum, &mut self.mean[c], &mut self.squares[c]),
                (count, f64::from(mean[c]), f64::from(squares[c])),
            );
        }
        self.count = total;
    }
}

/// BN of some channels as one multiply-add: `scale * x + shift`.
#[derive(Debug, Default)]
pub(crate) struct Affine {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

impl Affine {
    /// From a mean and an inverse deviation.
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

    /// From running statistics.
    pub fn set_running(&mut self, norm: &NormWeights<'_>, running: &[f32]) {
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
pub(crate) struct NormWeights<'a> {
    pub scale: &'a [f32],
    pub bias: &'a [f32],
}

/// Moves running statistics (means, then variances) towards a batch's.
pub(crate) fn update_running(running: &mut [f32], mean: &[f32], variance: &[f32], count: usize) {
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

/// A BN on the way back: what turns a gradient behind the ReLU into one in front of the BN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm<'a> {
    pub affine: &'a Affine,
    pub gamma: &'a [f32],
    pub mean: &'a [f32],
    pub inverse: &'a [f32],
}

impl<'a> Norm<'a> {
    /// Some of the channels.
    pub fn channels(&self, range: std::ops::Range<usize>) -> NormSlice<'a> {
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
pub(crate) struct NormSlice<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub gamma: &'a [f32],
    pub mean: &'a [f32],
}

/// One thread's sums for the gradients of gamma and beta, tile by tile.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    scale: Vec<f64>,
    bias: Vec<f64>,
    tile_scale: Vec<f32>,
    tile_bias: Vec<f32>,
}

impl Sums {
    /// Starts over, with this many channels.
    pub fn reset(&mut self, channels: usize) {
        for values in [&mut self.scale, &mut self.bias] {
            values.clear();
            values.resize(channels, 0.0);
        }
        for values in [&mut self.tile_scale, &mut self.tile_bias] {
            values.clear();
            values.resize(channels, 0.0);
        }
    }

    /// The present tile's sums (for gamma, for beta) of some channels.
    #[inline(always)]
    pub fn tile(&mut self, range: std::ops::Range<usize>) -> (&mut [f32], &mut [f32]) {
        (
            &mut self.tile_scale[range.clone()],
            &mut self.tile_bias[range],
        )
    }

    /// Ends a tile of these channels. The tile's sums for gamma are of deviations from the mean,
    /// which the inverse deviation normalises.
    #[inline(always)]
    pub fn flush(&mut self, range: std::ops::Range<usize>, inverse: &[f32]) {
        let tile = &mut self.tile_scale[range.clone()];
        tile.iter_mut()
            .zip(&inverse[range.clone()])
            .for_each(|(sum, inverse)| *sum *= inverse);
        for (sums, tile) in [
            (&mut self.scale, &mut self.tile_scale),
            (&mut self.bias, &mut self.tile_bias),
        ] {
            for (sum, tile) in sums[range.clone()].iter_mut().zip(&mut tile[range.clone()]) {
                *sum += f64::from(std::mem::take(tile));
            }
        }
    }

    /// Multiplies all sums.
    pub fn scale_all(&mut self, factor: f64) {
        self.scale
            .iter_mut()
            .chain(&mut self.bias)
            .for_each(|sum| *sum *= factor);
    }

    /// Adds all threads' sums into the gradients of gamma and beta, and gives each channel's
    /// two sums to `each`.
    pub fn merge<'a>(
        parts: impl Iterator<Item = &'a Sums> + Clone,
        gradient: (&mut [f32], &mut [f32]),
        mut each: impl FnMut(usize, f32, f32),
    ) {
        for (c, (scale, bias)) in gradient.0.iter_mut().zip(gradient.1).enumerate() {
            let sum = |of: fn(&Sums) -> &Vec<f64>| -> f64 {
                parts
                    .clone()
                    .map(|part| of(part).get(c).copied().unwrap_or(0.0))
                    .sum()
            };
            let (dscale, dbias) = (sum(|s| &s.scale) as f32, sum(|s| &s.bias) as f32);
            *scale += dscale;
            *bias += dbias;
            each(c, dscale, dbias);
        }
    }
}

/// ReLU that lets NaN through.
#[inline(always)]
pub(crate) fn relu(z: f32) -> f32 {
    if z < 0.0 { 0.0 } else { z }
}

/// For each channel, sums over all pixels of the gradient behind its normalisation, gamma
/// included: of g, and of g times the normalised value.
#[derive(Clone, Debug)]
pub(crate) struct GradientSums {
    pub plain: Vec<f32>,
    pub normalised: Vec<f32>,
}

impl GradientSums {
    pub fn new(channels: usize) -> Self {
        Self {
            plain: vec![0.0; channels],
            normalised: vec![0.0; channels],
        }
    }

    /// Starts with no consumer.
    pub fn reset(&mut self) {
        self.plain.fill(0.0);
        self.normalised.fill(0.0);
    }

    /// Starts with the sums of the block's last consumer (a transition or the head), whose
    /// gradients of gamma and beta are added.
    pub fn start<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a Sums> + Clone,
        gamma: &[f32],
        gradient: (&mut [f32], &mut [f32]),
    ) {
        Sums::merge(parts, gradient, |c, dscale, dbias| {
            self.plain[c] = gamma[c] * dbias;
            self.normalised[c] = gamma[c] * dscale;
        });
    }
}

/// A normalisation undone, as one expression for each channel:
/// `dx = inverse * (g - mean(g) - xhat * mean(g * xhat))`.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    /// Multiplies g.
    scale: Vec<f32>,
    /// Multiplies the deviation from the mean.
    slope: Vec<f32>,
    shift: Vec<f32>,
    mean: Vec<f32>,
}

impl Undo {
    /// For some channels. The sums include gamma; where `gamma` is given, g does not.
    pub fn new(
        statistics: &Statistics,
        channels: std::ops::Range<usize>,
        gamma: Option<&[f32]>,
        sums: &GradientSums,
        pixels: usize,
    ) -> Self {
        let share = 1.0 / pixels as f32;
        let mut undo = Self::default();
        for c in channels {
            let inverse = statistics.inverse[c];
            undo.scale
                .push(inverse * gamma.map_or(1.0, |gamma| gamma[c]));
            undo.slope
                .push(-inverse * inverse * sums.normalised[c] * share);
            undo.shift.push(-inverse * sums.plain[c] * share);
            undo.mean.push(statistics.mean[c]);
        }
        undo
    }

    /// One pixel: from g behind the normalisation to the gradient in front of it.
    #[inline(always)]
    pub fn pixel<S: Simd>(&self, simd: S, g: &[f32], x: &[f32], into: &mut [f32]) {
        let n = into.len();
        let (g, x, scale) = (&g[..n], &x[..n], &self.scale[..n]);
        let (slope, shift, mean) = (&self.slope[..n], &self.shift[..n], &self.mean[..n]);
        for c in 0..n {
            let rest = simd.scalar_fma(x[c] - mean[c], slope[c], shift[c]);
            into[c] = simd.scalar_fma(g[c], scale[c], rest);
        }
    }

    /// As [`Undo::pixel`], in place.
    #[inline(always)]
    pub fn pixel_in_place<S: Simd>(&self, simd: S, g: &mut [f32], x: &[f32]) {
        let n = g.len();
        let (x, scale) = (&x[..n], &self.scale[..n]);
        let (slope, shift, mean) = (&self.slope[..n], &self.shift[..n], &self.mean[..n]);
        for c in 0..n {
            let rest = simd.scalar_fma(x[c] - mean[c], slope[c], shift[c]);
            g[c] = simd.scalar_fma(g[c], scale[c], rest);
        }
    }
}

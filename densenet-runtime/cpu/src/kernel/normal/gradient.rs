//! The backward pass of BN: sums for gamma and beta, and normalisation undone.

use std::ops::Range;

use super::Statistics;
use crate::kernel::simd::Simd;

/// One thread's sums for the gradients of gamma and beta, tile by tile.
#[derive(Debug, Default)]
pub struct Sums {
    scale: Vec<f64>,
    bias: Vec<f64>,
    tile_scale: Vec<f32>,
    tile_bias: Vec<f32>,
}

impl Sums {
    /// Starts over with this many channels.
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

    /// The current tile's sums (for gamma, for beta) of some channels.
    #[inline(always)]
    pub fn tile(&mut self, range: Range<usize>) -> (&mut [f32], &mut [f32]) {
        (
            &mut self.tile_scale[range.clone()],
            &mut self.tile_bias[range],
        )
    }

    /// Ends a tile of these channels. The tile's sums for gamma are of deviations from the mean;
    /// the inverse deviation normalises them.
    #[inline(always)]
    pub fn flush(&mut self, range: Range<usize>, inverse: &[f32]) {
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

    /// Adds all threads' sums to the gradients of gamma and beta, and passes the two sums of each
    /// channel to `each`.
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

/// For each channel, sums over all pixels of the gradient after its normalisation, gamma included:
/// of g, and of g times the normalised value.
#[derive(Clone, Debug, Default)]
pub struct GradientSums {
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

    /// Starts without consumers, for this many channels.
    pub fn reset(&mut self, channels: usize) {
        for sums in [&mut self.plain, &mut self.normalised] {
            sums.clear();
            sums.resize(channels, 0.0);
        }
    }

    /// Adds the sums of a consumer, also to its gradients of gamma and beta.
    pub fn add<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a Sums> + Clone,
        gamma: &[f32],
        gradient: (&mut [f32], &mut [f32]),
    ) {
        Sums::merge(parts, gradient, |c, dscale, dbias| {
            self.plain[c] += gamma[c] * dbias;
            self.normalised[c] += gamma[c] * dscale;
        });
    }
}

/// A normalisation undone, as one expression for each channel:
/// `dx = inverse * (g - mean(g) - xhat * mean(g * xhat))`.
#[derive(Debug, Default)]
pub struct Undo {
    /// The factor of g.
    scale: Vec<f32>,
    /// The factor of the deviation from the mean.
    slope: Vec<f32>,
    shift: Vec<f32>,
    mean: Vec<f32>,
}

impl Undo {
    /// Undoes the normalisation of some channels. The sums include gamma; if `gamma` is given, g
    /// does not.
    pub fn set(
        &mut self,
        statistics: &Statistics,
        channels: Range<usize>,
        gamma: Option<&[f32]>,
        sums: &GradientSums,
        pixels: usize,
    ) {
        let share = 1.0 / pixels as f32;
        for values in [
            &mut self.scale,
            &mut self.slope,
            &mut self.shift,
            &mut self.mean,
        ] {
            values.clear();
        }
        for c in channels {
            let inverse = statistics.inverse[c];
            self.scale
                .push(inverse * gamma.map_or(1.0, |gamma| gamma[c]));
            self.slope
                .push(-inverse * inverse * sums.normalised[c] * share);
            self.shift.push(-inverse * sums.plain[c] * share);
            self.mean.push(statistics.mean[c]);
        }
    }

    /// One pixel: from g after the normalisation to the gradient before it.
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

    /// One pixel, as [`Undo::pixel`], in place.
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

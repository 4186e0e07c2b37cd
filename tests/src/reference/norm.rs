//! Batch normalisation.

use dfdx::prelude::*;

use super::maps::{Maps, Matrix, Vector, each_row};

const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// Which statistics normalise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The batch's, which then move the running ones.
    Train,
    /// The running ones.
    Evaluate,
}

/// The parameters and running statistics of one BN.
pub struct Norm<'a> {
    /// Gamma.
    pub scale: &'a Vector,
    /// Beta.
    pub bias: &'a Vector,
    /// Running mean.
    pub mean: &'a mut [f64],
    /// Running variance, unbiased.
    pub var: &'a mut [f64],
    /// The distance of the value nearest to a kink of ReLU or max pooling so far.
    pub margin: &'a mut f64,
}

impl Norm<'_> {
    /// BN and ReLU.
    pub fn relu<T: Tape<f64, Cpu>>(mut self, maps: Maps<T>, mode: Mode) -> Maps<T> {
        let shape = *maps.values.shape();
        let scale = each_row(self.scale.retaped::<T>(), shape);
        let bias = each_row(self.bias.retaped::<T>(), shape);
        maps.map(|values| {
            let normal = match mode {
                Mode::Train => self.normalise_by_batch(values),
                Mode::Evaluate => self.normalise_by_running(values),
            };
            let affine = normal * scale + bias;
            let distances = affine.as_vec().into_iter().map(f64::abs);
            *self.margin = distances.fold(*self.margin, f64::min);
            affine.relu()
        })
    }

    fn normalise_by_batch<T: Tape<f64, Cpu>>(&mut self, values: Matrix<T>) -> Matrix<T> {
        let shape = *values.shape();
        let mean = values.retaped::<T>().mean::<(usize,), Axis<0>>();
        let means = mean.as_vec();
        let centred = values - each_row(mean, shape);
        let square = centred.retaped::<T>().square();
        let var = square.mean::<(usize,), Axis<0>>();
        // dfdx's mean makes it the biased variance; the running one is unbiased.
        let unbiased = shape.0 as f64 / (shape.0 - 1) as f64;
        for (channel, var) in var.as_vec().into_iter().enumerate() {
            blend(&mut self.mean[channel], means[channel]);
            blend(&mut self.var[channel], var * unbiased);
        }
        centred / each_row((var + EPSILON).sqrt(), shape)
    }

    fn normalise_by_running<T: Tape<f64, Cpu>>(&self, values: Matrix<T>) -> Matrix<T> {
        let shape = *values.shape();
        let device = Cpu::default();
        let mean: Vector = device.tensor_from_vec(self.mean.to_vec(), (shape.1,));
        let var: Vector = device.tensor_from_vec(self.var.to_vec(), (shape.1,));
        let std = (var + EPSILON).sqrt();
        (values - each_row(mean, shape)) / each_row(std, shape)
    }
}

/// Moves a running statistic towards a batch's.
fn blend(running: &mut f64, batch: f64) {
    *running = (1.0 - MOMENTUM) * *running + MOMENTUM * batch;
}

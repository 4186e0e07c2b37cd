//! The initial values of parameters.
//!
//! dfdx's own sampling is generic, so it is compiled in the user's crate, without optimisation in
//! the dev profile: tens of seconds for a DenseNet-201. Plain functions of this crate make the
//! numbers instead, from a seed that the device draws.

use std::any::Any;

use dfdx::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, Uniform};

use crate::plan::{Plan, Role};
use crate::weights::State;

/// Fills a tensor with the numbers that `make` makes from a seed and the number of elements.
pub(super) fn fill<S: Shape, E: Dtype, D: Device<E>>(
    tensor: &mut Tensor<S, E, D>,
    make: impl FnOnce(u64, usize) -> Vec<f32>,
) -> Result<(), D::Err> {
    let seed = tensor.device().random_u64();
    let values = make(seed, tensor.shape().num_elements());
    // The usual dtype needs no loop in the user's crate.
    match (&values as &dyn Any).downcast_ref::<Vec<E>>() {
        Some(values) => tensor.copy_from(values),
        None => {
            let values: Vec<E> = values
                .iter()
                .map(|&value| E::from_f32(value).unwrap_or_default())
                .collect();
            tensor.copy_from(&values);
        }
    }
    Ok(())
}

/// A convolution's weight whose outputs each read `inputs` values: normally distributed with
/// variance 2 / `inputs`.
pub(super) fn convolution(seed: u64, count: usize, inputs: usize) -> Vec<f32> {
    let std = (2.0 / inputs as f64).sqrt();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sample = || -> f64 { StandardNormal.sample(&mut rng) };
    (0..count).map(|_| (sample() * std) as f32).collect()
}

/// A classifier's weight: uniform within 1 / sqrt(`features`).
pub(super) fn classifier(seed: u64, count: usize, features: usize) -> Vec<f32> {
    let bound = 1.0 / (features as f64).sqrt();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let distribution = Uniform::new(-bound, bound);
    (0..count)
        .map(|_| distribution.sample(&mut rng) as f32)
        .collect()
}

impl State {
    /// A network's initial state from a seed: the numbers of its type when it is built on a device
    /// with this seed.
    ///
    /// ```
    /// use densenet_runtime::prelude::*;
    /// use densenet_runtime::weights::State;
    ///
    /// densenet! { Small { blocks: [2, 1], k: 4, theta: 0.5, bottleneck, input: [3, 8, 8] } }
    ///
    /// let small = Cpu::seed_from_u64(7).build_module::<Small, f32>();
    /// assert_eq!(State::initial(&Small::PLAN, 7), State::of(&small));
    /// ```
    pub fn initial(plan: &Plan, seed: u64) -> Self {
        let mut state = Self::default();
        // Each weight has a seed of its own, which the device draws where dfdx builds the network.
        let seeds = Cpu::seed_from_u64(seed);
        for parameter in plan.parameters() {
            let count = parameter.len();
            let inputs: usize = parameter.shape.iter().skip(1).product();
            let values = match parameter.role {
                Role::ConvWeight => convolution(seeds.random_u64(), count, inputs),
                Role::LinearWeight => classifier(seeds.random_u64(), count, inputs),
                Role::NormScale | Role::RunningVar => vec![1.0; count],
                Role::NormBias | Role::RunningMean | Role::LinearBias => vec![0.0; count],
            };
            if parameter.role.is_trainable() {
                state.parameters.extend(values);
            } else {
                state.running.extend(values);
            }
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Classifier, Conv};

    #[test]
    fn a_convolution_starts_with_hes_variance() {
        let device = Cpu::seed_from_u64(1);
        let conv = Conv::<32, 64, 3, f32, Cpu>::build(&device);
        let values = conv.weight.as_vec();
        let variance = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        let expected = 2.0 / (32.0 * 9.0);
        assert!(
            (variance / expected - 1.0).abs() < 0.05,
            "{variance} {expected}"
        );
    }

    #[test]
    fn a_seed_is_a_start_and_another_seed_another() {
        let weight = |seed| Conv::<2, 2, 1, f32, Cpu>::build(&Cpu::seed_from_u64(seed)).weight;
        assert_eq!(weight(1).as_vec(), weight(1).as_vec());
        assert_ne!(weight(1).as_vec(), weight(2).as_vec());
    }

    #[test]
    fn a_classifier_starts_within_its_bound_and_without_bias() {
        let classifier = Classifier::<16, 8, f64, Cpu>::build(&Cpu::default());
        let weight = classifier.weight.as_vec();
        assert!(weight.iter().all(|value| value.abs() <= 0.25));
        assert!(weight.iter().any(|value| value.abs() > 0.2));
        assert_eq!(classifier.bias.as_vec(), [0.0; 8]);
    }
}

//! The linear layer at the end.

use dfdx::prelude::*;
use rand_distr::Uniform;

/// A linear layer from IN pooled features to CLASSES logits.
///
/// Unlike dfdx's `Linear` its bias starts at 0, as in the authors' code; the weight is uniform
/// within 1 / sqrt(IN), as there.
#[derive(Clone, Debug)]
pub struct Classifier<const IN: usize, const CLASSES: usize, E: Dtype, D: Storage<E>> {
    /// Classes, features.
    pub weight: Tensor<Rank2<CLASSES, IN>, E, D>,
    /// One for each class.
    pub bias: Tensor<Rank1<CLASSES>, E, D>,
}

impl<const IN: usize, const CLASSES: usize, E: Dtype, D: Device<E>> TensorCollection<E, D>
    for Classifier<IN, CLASSES, E, D>
{
    type To<E2: Dtype, D2: Device<E2>> = Classifier<IN, CLASSES, E2, D2>;

    fn iter_tensors<V: ModuleVisitor<Self, E, D>>(
        visitor: &mut V,
    ) -> Result<Option<Self::To<V::E2, V::D2>>, V::Err> {
        visitor.visit_fields(
            (
                Self::tensor(
                    "weight",
                    |s| &s.weight,
                    |s| &mut s.weight,
                    TensorOptions::reset_with(|t| {
                        let bound = 1.0 / (IN as f64).sqrt();
                        t.try_fill_with_distr(Cast(Uniform::new(-bound, bound)))
                    }),
                ),
                Self::tensor(
                    "bias",
                    |s| &s.bias,
                    |s| &mut s.bias,
                    TensorOptions::reset_to_zeros(),
                ),
            ),
            |(weight, bias)| Classifier { weight, bias },
        )
    }
}

/// A distribution of f64 for any dtype.
pub(super) struct Cast<T>(pub(super) T);

impl<E: Dtype, T: rand_distr::Distribution<f64>> rand_distr::Distribution<E> for Cast<T> {
    fn sample<R: rand::Rng + ?Sized>(&self, rng: &mut R) -> E {
        E::from_f64(self.0.sample(rng)).unwrap_or_default()
    }
}

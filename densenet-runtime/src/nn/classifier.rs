//! The linear layer at the end.

use dfdx::prelude::*;

use super::initial::{classifier, fill};

/// A linear layer from IN pooled features to CLASSES logits.
///
/// Unlike that of dfdx's `Linear`, its bias starts at 0, as in the authors' code. Its weight starts
/// uniform within 1 / sqrt(IN), as there.
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
                        fill(t, |seed, count| classifier(seed, count, IN))
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

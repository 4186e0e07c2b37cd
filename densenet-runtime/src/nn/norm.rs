//! The parameters and running statistics of a batch normalisation.

use dfdx::prelude::*;

/// Scale, shift and running statistics of a batch normalisation over C channels.
///
/// Unlike dfdx's `BatchNorm2D` it has no epsilon and momentum of its own: they are
/// [`EPSILON`](crate::plan::norm::EPSILON) and [`MOMENTUM`](crate::plan::norm::MOMENTUM) throughout.
#[derive(Clone, Debug)]
pub struct BatchNorm<const C: usize, E: Dtype, D: Storage<E>> {
    /// Gamma; starts at 1.
    pub scale: Tensor<Rank1<C>, E, D>,
    /// Beta; starts at 0.
    pub bias: Tensor<Rank1<C>, E, D>,
    /// Mean for inference; starts at 0.
    pub running_mean: Tensor<Rank1<C>, E, D>,
    /// Unbiased variance for inference; starts at 1.
    pub running_var: Tensor<Rank1<C>, E, D>,
}

impl<const C: usize, E: Dtype, D: Device<E>> TensorCollection<E, D> for BatchNorm<C, E, D> {
    type To<E2: Dtype, D2: Device<E2>> = BatchNorm<C, E2, D2>;

    fn iter_tensors<V: ModuleVisitor<Self, E, D>>(
        visitor: &mut V,
    ) -> Result<Option<Self::To<V::E2, V::D2>>, V::Err> {
        visitor.visit_fields(
            (
                Self::tensor(
                    "scale",
                    |s| &s.scale,
                    |s| &mut s.scale,
                    TensorOptions::reset_to_ones(),
                ),
                Self::tensor(
                    "bias",
                    |s| &s.bias,
                    |s| &mut s.bias,
                    TensorOptions::reset_to_zeros(),
                ),
                Self::tensor(
                    "running_mean",
                    |s| &s.running_mean,
                    |s| &mut s.running_mean,
                    TensorOptions::detached(|t| t.try_fill_with_zeros()),
                ),
                Self::tensor(
                    "running_var",
                    |s| &s.running_var,
                    |s| &mut s.running_var,
                    TensorOptions::detached(|t| t.try_fill_with_ones()),
                ),
            ),
            |(scale, bias, running_mean, running_var)| BatchNorm {
                scale,
                bias,
                running_mean,
                running_var,
            },
        )
    }
}

//! A convolution without bias.

use dfdx::prelude::*;

use super::initial::{convolution, fill};

/// The weight of a KxK convolution from IN to OUT feature maps, without bias.
///
/// Starts from He's initialisation: normal, variance 2 / (IN * K * K) (paper, section 4.2).
#[derive(Clone, Debug)]
pub struct Conv<const IN: usize, const OUT: usize, const K: usize, E: Dtype, D: Storage<E>> {
    /// Maps out, maps in, height, width.
    pub weight: Tensor<Rank4<OUT, IN, K, K>, E, D>,
}

impl<const IN: usize, const OUT: usize, const K: usize, E: Dtype, D: Device<E>>
    TensorCollection<E, D> for Conv<IN, OUT, K, E, D>
{
    type To<E2: Dtype, D2: Device<E2>> = Conv<IN, OUT, K, E2, D2>;

    fn iter_tensors<V: ModuleVisitor<Self, E, D>>(
        visitor: &mut V,
    ) -> Result<Option<Self::To<V::E2, V::D2>>, V::Err> {
        let weight = Self::tensor(
            "weight",
            |s| &s.weight,
            |s| &mut s.weight,
            TensorOptions::reset_with(|t| {
                fill(t, |seed, count| convolution(seed, count, IN * K * K))
            }),
        );
        visitor.visit_fields(weight, |weight| Conv { weight })
    }
}

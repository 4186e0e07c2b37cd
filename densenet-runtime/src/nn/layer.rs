//! The two kinds of dense layer (paper, section 3).

use dfdx::prelude::*;

use super::{BatchNorm, Conv};

/// A bottleneck layer of DenseNet-B: BN, ReLU, 1x1 convolution to MAPS maps, BN, ReLU, 3x3
/// convolution to K maps.
#[derive(Clone, Debug)]
pub struct BottleneckLayer<
    const IN: usize,
    const MAPS: usize,
    const K: usize,
    E: Dtype,
    D: Storage<E>,
> {
    /// Normalises the layer's input.
    pub norm1: BatchNorm<IN, E, D>,
    /// The 1x1 convolution.
    pub conv1: Conv<IN, MAPS, 1, E, D>,
    /// Normalises the bottleneck maps.
    pub norm2: BatchNorm<MAPS, E, D>,
    /// The 3x3 convolution, padding 1.
    pub conv2: Conv<MAPS, K, 3, E, D>,
}

impl<const IN: usize, const MAPS: usize, const K: usize, E: Dtype, D: Device<E>>
    TensorCollection<E, D> for BottleneckLayer<IN, MAPS, K, E, D>
{
    type To<E2: Dtype, D2: Device<E2>> = BottleneckLayer<IN, MAPS, K, E2, D2>;

    fn iter_tensors<V: ModuleVisitor<Self, E, D>>(
        visitor: &mut V,
    ) -> Result<Option<Self::To<V::E2, V::D2>>, V::Err> {
        visitor.visit_fields(
            (
                Self::module("norm1", |s| &s.norm1, |s| &mut s.norm1),
                Self::module("conv1", |s| &s.conv1, |s| &mut s.conv1),
                Self::module("norm2", |s| &s.norm2, |s| &mut s.norm2),
                Self::module("conv2", |s| &s.conv2, |s| &mut s.conv2),
            ),
            |(norm1, conv1, norm2, conv2)| BottleneckLayer {
                norm1,
                conv1,
                norm2,
                conv2,
            },
        )
    }
}

/// A plain layer: BN, ReLU, 3x3 convolution to K maps.
#[derive(Clone, Debug)]
pub struct PlainLayer<const IN: usize, const K: usize, E: Dtype, D: Storage<E>> {
    /// Normalises the layer's input.
    pub norm: BatchNorm<IN, E, D>,
    /// The 3x3 convolution, padding 1.
    pub conv: Conv<IN, K, 3, E, D>,
}

impl<const IN: usize, const K: usize, E: Dtype, D: Device<E>> TensorCollection<E, D>
    for PlainLayer<IN, K, E, D>
{
    type To<E2: Dtype, D2: Device<E2>> = PlainLayer<IN, K, E2, D2>;

    fn iter_tensors<V: ModuleVisitor<Self, E, D>>(
        visitor: &mut V,
    ) -> Result<Option<Self::To<V::E2, V::D2>>, V::Err> {
        visitor.visit_fields(
            (
                Self::module("norm", |s| &s.norm, |s| &mut s.norm),
                Self::module("conv", |s| &s.conv, |s| &mut s.conv),
            ),
            |(norm, conv)| PlainLayer { norm, conv },
        )
    }
}

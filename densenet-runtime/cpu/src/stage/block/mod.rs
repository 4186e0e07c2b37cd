//! A dense block: one buffer that its layers append to.
//!
//! In the forward pass, a layer reads a prefix of the buffer's channels, applies BN and ReLU as it
//! loads them, and writes its k maps after them, measured as they are written. The backward pass
//! starts at the last layer: the normalisation that all consumers of a channel share is undone
//! once, when it reaches the channel's producer (`conv::finish`). A consumer's contribution is
//! linear in gamma times the masked gradient, so the two sums that this needs are sums over the
//! consumers' gradients of gamma and beta, and need no pass of their own.

mod backward;
mod forward;

pub use backward::{BlockGradients, backward};
pub use forward::forward;

use super::Drops;
use crate::kernel::dropout::Dropout;
use crate::kernel::normal::{Affine, GradientSums, Statistics, Undo};
use densenet_plan::{Block, ConvTensor, DropoutSites, FrozenTensors, Layer};

/// The state of a block in a training step, besides its feature maps.
pub struct BlockState {
    /// The statistics of the feature maps.
    pub maps: Statistics,
    /// The statistics of each layer's bottleneck maps.
    bottlenecks: Vec<Statistics>,
    /// The sums of the gradient of the feature maps.
    pub gradient: GradientSums,
    norms: LayerNorms,
}

/// Memory for the BN of the current layer.
#[derive(Default)]
struct LayerNorms {
    /// The BN of the feature maps that it reads, and of its bottleneck maps.
    affine: [Affine; 2],
    /// The sums of the gradient of its bottleneck maps.
    totals: GradientSums,
    undo: Undo,
}

impl BlockState {
    pub fn new(block: &Block) -> Self {
        let bottleneck = |layer: Layer| Statistics::new(layer.bottleneck.unwrap_or(0));
        Self {
            maps: Statistics::new(block.output()),
            bottlenecks: block.iter().map(bottleneck).collect(),
            gradient: GradientSums::new(block.output()),
            norms: LayerNorms::default(),
        }
    }
}

/// Outputs of a block's 1x1 convolutions.
pub enum Bottlenecks<'a> {
    /// Those of each layer.
    Kept(&'a mut [f32]),
    /// Those of one layer, which the backward pass computes again.
    Recomputed(&'a mut [f32]),
}

impl Bottlenecks<'_> {
    /// The `len` values of a layer.
    fn layer(&mut self, index: usize, len: usize) -> &mut [f32] {
        match self {
            Self::Kept(all) => &mut all[index * len..][..len],
            Self::Recomputed(one) => &mut one[..len],
        }
    }
}

/// The buffers of a block.
pub struct BlockBuffers<'a> {
    /// Rows of `stride`; the first channels hold the block's input.
    pub x: &'a mut [f32],
    /// Elements from a pixel's feature maps to the next pixel's.
    pub stride: usize,
    /// Outputs of the 1x1 convolutions.
    pub bottleneck: Bottlenecks<'a>,
    /// Pixels x k: the new maps of a plain layer, whose input is in the buffer that they are
    /// written to.
    pub fresh: &'a mut [f32],
}

/// The dropout of a block and of the transition that follows it, after convolutions with weights
/// that train.
#[derive(Clone, Copy)]
pub struct Sites<'a> {
    pub drops: Drops,
    pub sites: DropoutSites,
    pub frozen: FrozenTensors<'a>,
}

impl Sites<'_> {
    fn at(self, site: usize, conv: &ConvTensor) -> Option<Dropout> {
        let dropout = Dropout::new(self.drops.probability, self.drops.seed, site);
        dropout.filter(|_| !self.frozen.has(conv.weight))
    }

    fn bottleneck(self, layer: usize, conv: &ConvTensor) -> Option<Dropout> {
        self.at(self.sites.bottleneck(layer), conv)
    }

    pub fn transition(self, conv: &ConvTensor) -> Option<Dropout> {
        self.at(self.sites.transition(), conv)
    }

    fn maps(self, layer: usize, conv: &ConvTensor) -> Option<Dropout> {
        self.at(self.sites.maps(layer), conv)
    }
}

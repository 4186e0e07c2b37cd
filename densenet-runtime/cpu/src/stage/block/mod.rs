//! A dense block: one buffer that its layers append to.
//!
//! Forward, a layer reads a prefix of the buffer's channels with BN and ReLU as it loads them,
//! and writes its k maps behind them, measured as they are written. Backward, the last layer
//! first: the BN that all consumers of a channel share is undone once, when its producer's turn
//! comes (`conv::finish`). Each consumer's part in it is linear in gamma times the masked
//! gradient, so the two sums that undoing needs are sums of what each consumer's gradients of
//! gamma and beta were, and cost no pass of their own.

mod backward;
mod forward;
mod layer;

pub use backward::{BlockGradients, backward};
pub use forward::forward;

use super::Drops;
use crate::kernel::dropout::Dropout;
use crate::kernel::normal::{Affine, GradientSums, Statistics, Undo};
use densenet_plan::{Block, DropoutSites, Layer};

/// What a block remembers of a training step besides its feature maps.
pub struct BlockState {
    /// Of the feature maps.
    pub maps: Statistics,
    /// Of each layer's bottleneck maps.
    bottlenecks: Vec<Statistics>,
    /// Of the gradient of the feature maps.
    pub gradient: GradientSums,
    norms: LayerNorms,
}

/// Memory for the BN of the layer at hand.
#[derive(Default)]
struct LayerNorms {
    /// Of the feature maps that it reads, and of its bottleneck maps.
    affine: [Affine; 2],
    /// The gradient of its bottleneck maps.
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
    /// Of each layer.
    Kept(&'a mut [f32]),
    /// Of one layer, to be computed again on the way back.
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
    /// Rows of `stride`; the block's input in the first channels.
    pub x: &'a mut [f32],
    /// Elements from a pixel's feature maps to the next pixel's.
    pub stride: usize,
    /// Outputs of the 1x1 convolutions.
    pub bottleneck: Bottlenecks<'a>,
    /// Pixels x k: the new maps of a plain layer, which reads the buffer that they belong in.
    pub fresh: &'a mut [f32],
}

/// The dropout of a block and of the transition that follows it.
#[derive(Clone, Copy)]
pub struct Sites {
    pub drops: Drops,
    pub sites: DropoutSites,
}

impl Sites {
    fn at(self, site: usize) -> Option<Dropout> {
        Dropout::new(self.drops.probability, self.drops.seed, site)
    }

    fn bottleneck(self, layer: usize) -> Option<Dropout> {
        self.at(self.sites.bottleneck(layer))
    }

    pub fn transition(self) -> Option<Dropout> {
        self.at(self.sites.transition())
    }

    fn maps(self, layer: usize) -> Option<Dropout> {
        self.at(self.sites.maps(layer))
    }
}

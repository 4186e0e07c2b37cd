//! Dropout: after each convolution but the first (paper, section 4.2). Whether a value is zeroed is
//! a function of the step's seed, the site and the value's index, so that no mask is stored.

use crate::Plan;

/// How a value is zeroed or kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// A value is kept if its 32 random bits are at least this.
    pub threshold: u32,
    /// The factor of a value that is kept: 1 / (1 - probability).
    pub scale: f32,
}

impl Dropout {
    /// Dropout with this probability; `None` for 0.
    pub fn new(probability: f64) -> Option<Self> {
        (probability > 0.0).then(|| Self {
            threshold: (probability * f64::from(u32::MAX)) as u32,
            scale: (1.0 / (1.0 - probability)) as f32,
        })
    }
}

/// The numbers of a block's dropout sites: two for each layer, then one of the transition that
/// follows the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutSites {
    first: usize,
    layers: usize,
}

impl DropoutSites {
    /// Those of a block with this many layers, outside of a network.
    pub const fn alone(layers: usize) -> Self {
        Self { first: 0, layers }
    }

    /// After a layer's 1x1 convolution.
    pub const fn bottleneck(self, layer: usize) -> usize {
        self.first + 2 * layer
    }

    /// After a layer's 3x3 convolution.
    pub const fn maps(self, layer: usize) -> usize {
        self.first + 2 * layer + 1
    }

    /// After the convolution of the transition.
    pub const fn transition(self) -> usize {
        self.first + 2 * self.layers
    }
}

impl Plan {
    /// The dropout sites of the block with this index, counted over the whole network.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn dropout_sites(&self, block: usize) -> DropoutSites {
        let before = self.blocks()[..block].iter();
        DropoutSites {
            first: before.map(|block| 2 * block.layers + 1).sum(),
            layers: self.blocks()[block].layers,
        }
    }
}

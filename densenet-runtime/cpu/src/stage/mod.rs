//! The stages of a network, forward and backward. Each does its own BN.

pub mod block;
pub mod head;
pub mod measure;
pub mod stem;
pub mod transition;

use std::ops::Range;

use super::conv::pointwise::Input;
use super::engine::Engine;
use super::kernel::load::NormRelu;
use super::kernel::normal::{Affine, GradientSums, Norm, NormWeights, Norms, Statistics};
use densenet_plan::{DropoutSites, NormTensors, Span};

/// What all stages receive in the forward pass.
pub struct Forward<'a> {
    /// The number of images.
    pub batch: usize,
    pub parameters: &'a [f32],
    pub norms: Norms<'a>,
}

impl Forward<'_> {
    /// Whether the batch's statistics are used.
    pub fn training(&self) -> bool {
        matches!(self.norms, Norms::Batch(_))
    }
}

/// The dropout of a pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drops {
    /// The probability of zeroing a value; 0 if not training.
    pub probability: f64,
    pub seed: u64,
}

impl Drops {
    /// The dropout of a block and of the transition that follows it, by their sites.
    pub fn at(self, sites: DropoutSites) -> block::Sites {
        block::Sites { drops: self, sites }
    }
}

/// What all stages receive in the backward pass.
pub struct Backward<'a> {
    /// The number of images.
    pub batch: usize,
    pub parameters: &'a [f32],
    pub gradients: Gradients<'a>,
}

/// The gradients of the parameters that train, which are added to.
pub struct Gradients<'a> {
    values: &'a mut [f32],
    /// The parameter of the first gradient.
    first: usize,
}

impl<'a> Gradients<'a> {
    /// Those of the parameters from `first` on.
    pub fn after(first: usize, values: &'a mut [f32]) -> Self {
        Self { values, first }
    }

    /// Those of some parameters.
    ///
    /// # Panics
    /// If these do not train.
    pub fn range(&mut self, parameters: Range<usize>) -> &mut [f32] {
        &mut self.values[parameters.start - self.first..parameters.end - self.first]
    }

    /// Those of several tensors.
    ///
    /// # Panics
    /// If these do not train, or overlap.
    pub fn of_each<const N: usize>(&mut self, tensors: [Span; N]) -> [&mut [f32]; N] {
        let spans = tensors.map(|tensor| match tensor.len {
            0 => Span::default(),
            len => Span {
                start: tensor.start - self.first,
                len,
            },
        });
        Span::of_each(spans, self.values)
    }
}

/// A block's feature maps, as the transition or the head after it reads them.
pub struct Maps<'a> {
    /// Rows of `stride`.
    pub x: &'a [f32],
    pub stride: usize,
    /// The statistics of the batch.
    pub statistics: &'a Statistics,
    /// Memory for the reader's BN.
    pub affine: &'a mut Affine,
}

impl<'a> Maps<'a> {
    /// The maps with the reader's BN and ReLU. Prepares the BN over `pixels`.
    fn normalised(
        self,
        pass: &mut Forward<'_>,
        tensors: &NormTensors,
        pixels: usize,
    ) -> NormRelu<'a> {
        let Forward {
            parameters, norms, ..
        } = pass;
        self.affine
            .prepare(parameters, tensors, self.statistics, norms, pixels);
        NormRelu {
            x: self.x,
            stride: self.stride,
            affine: self.affine,
        }
    }

    /// The maps with the reader's BN, for the backward pass.
    fn input(self, parameters: &'a [f32], tensors: &NormTensors) -> Input<'a> {
        let weights = NormWeights::of(parameters, tensors);
        let statistics = self.statistics;
        Input {
            x: self.x,
            stride: self.stride,
            channels: tensors.channels(),
            norm: Norm::of_batch(self.affine, weights, statistics),
        }
    }
}

/// The gradient that a transition or a head leaves in the block before it.
pub struct MapsGradient<'a> {
    /// Gamma times the masked gradient: rows of the maps' stride.
    pub g: &'a mut [f32],
    pub sums: &'a mut GradientSums,
}

impl MapsGradient<'_> {
    /// Takes the sums that the reader left in the engine's scratch, and adds them to the gradients
    /// of its BN.
    fn start(self, engine: &Engine, pass: &mut Backward<'_>, tensors: &NormTensors) {
        let gamma = tensors.scale.of(pass.parameters);
        let own = pass.gradients.range(tensors.trainable());
        let own = own.split_at_mut(tensors.channels());
        self.sums.start(engine.sums(), gamma, own);
    }
}

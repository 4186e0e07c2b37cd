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
use densenet_plan::{DropoutSites, FrozenTensors, NormTensors, Span};

/// What all stages receive in the forward pass.
pub struct Forward<'a> {
    /// The number of images.
    pub batch: usize,
    pub parameters: &'a [f32],
    pub norms: Norms<'a>,
    pub frozen: FrozenTensors<'a>,
}

impl Forward<'_> {
    /// Whether the batch's statistics are used.
    pub fn training(&self) -> bool {
        matches!(self.norms, Norms::Batch(_))
    }

    /// Prepares the BN of a consumer of maps with these statistics, over `pixels`. A frozen BN uses
    /// its running statistics.
    fn prepare(
        &mut self,
        affine: &mut Affine,
        tensors: &NormTensors,
        statistics: &Statistics,
        pixels: usize,
    ) {
        let norms = match &mut self.norms {
            Norms::Batch(running) if self.frozen.has_norm(tensors) => Norms::Running(running),
            Norms::Batch(running) => Norms::Batch(running),
            Norms::Running(running) => Norms::Running(running),
        };
        affine.prepare(self.parameters, tensors, statistics, norms, pixels);
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
    pub fn at(self, sites: DropoutSites, frozen: FrozenTensors<'_>) -> block::Sites<'_> {
        block::Sites {
            drops: self,
            sites,
            frozen,
        }
    }
}

/// What all stages receive in the backward pass.
pub struct Backward<'a> {
    /// The number of images.
    pub batch: usize,
    pub parameters: &'a [f32],
    pub gradients: Gradients<'a>,
    pub frozen: FrozenTensors<'a>,
    /// The running statistics, which frozen BNs have normalised with.
    pub running: &'a [f32],
    /// The first parameter that trains. The pass ends when no tensor before trains.
    pub first_trained: usize,
}

impl<'a> Backward<'a> {
    /// The BN of a consumer of maps with these statistics, whose multiply-add is computed into
    /// `affine`.
    fn norm<'n>(
        &self,
        affine: &'n mut Affine,
        tensors: &NormTensors,
        statistics: &'n Statistics,
    ) -> Norm<'n>
    where
        'a: 'n,
    {
        let weights = NormWeights::of(self.parameters, tensors);
        if self.frozen.has_norm(tensors) {
            let running = &self.running[tensors.running()];
            Norm::of_running(affine, weights, running, statistics)
        } else {
            Norm::of_batch(affine, weights, statistics)
        }
    }

    /// Starts `sums` with those that the last consumer of some maps left in the engine's scratch.
    fn start(&mut self, engine: &Engine, tensors: &NormTensors, sums: &mut GradientSums) {
        sums.reset(tensors.channels());
        self.add(engine, tensors, sums);
    }

    /// Adds the sums that a consumer left in the engine's scratch, also to the gradients of its BN.
    /// A frozen BN has none: its statistics do not depend on the maps.
    fn add(&mut self, engine: &Engine, tensors: &NormTensors, sums: &mut GradientSums) {
        if self.frozen.has_norm(tensors) {
            return;
        }
        let gamma = tensors.scale.of(self.parameters);
        let own = self.gradients.range(tensors.trainable());
        let own = own.split_at_mut(tensors.channels());
        sums.add(engine.sums(), gamma, own);
    }

    /// Whether neither the tensor that ends there nor one before it trains.
    pub fn is_done(&self, end: usize) -> bool {
        end <= self.first_trained
    }
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
        pass.prepare(self.affine, tensors, self.statistics, pixels);
        NormRelu {
            x: self.x,
            stride: self.stride,
            affine: self.affine,
        }
    }

    /// The maps with the reader's BN, for the backward pass.
    fn input<'p: 'a>(self, pass: &Backward<'p>, tensors: &NormTensors) -> Input<'a> {
        Input {
            x: self.x,
            stride: self.stride,
            channels: tensors.channels(),
            norm: pass.norm(self.affine, tensors, self.statistics),
        }
    }
}

/// The gradient that a transition or a head leaves in the block before it.
pub struct MapsGradient<'a> {
    /// Gamma times the masked gradient: rows of the maps' stride.
    pub g: &'a mut [f32],
    pub sums: &'a mut GradientSums,
}

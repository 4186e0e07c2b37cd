//! The stages of a network as dfdx operations.

use dfdx::prelude::*;

use crate::plan::{Block, Stem, Transition};

/// BN, ReLU, global average pool and classifier behind the last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Feature maps that enter.
    pub input: usize,
    /// Height of the feature maps.
    pub height: usize,
    /// Width of the feature maps.
    pub width: usize,
    /// Number of classes.
    pub classes: usize,
}

/// One stage of a network, with its shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The first layers.
    Stem(Stem),
    /// A dense block.
    Block(Block),
    /// A transition.
    Transition(Transition),
    /// The last layers.
    Head(Head),
}

/// Runs a stage with running statistics and without a tape: BN and dropout as in inference.
///
/// `module` holds the stage's parameters (for [`Stage::Head`] the tuple of norm and classifier);
/// `input` is NCHW, and so is what comes back, except for the logits of a head.
///
/// # Errors
/// When the device is out of memory.
pub fn infer<M, I, O>(
    module: &M,
    stage: Stage,
    input: Tensor<I, f32, Cpu>,
    output: O,
) -> Result<Tensor<O, f32, Cpu>, <Cpu as HasErr>::Err>
where
    M: TensorCollection<f32, Cpu>,
    I: Shape,
    O: Shape,
{
    let _ = (module, stage, input, output);
    todo!()
}

/// Runs a stage on a batch's statistics and records it on the tape; updates the running
/// statistics in `module`. `dropout` is the probability with which a value is zeroed.
///
/// # Errors
/// When the device is out of memory.
pub fn train<M, I, O>(
    module: &mut M,
    stage: Stage,
    dropout: f64,
    input: Tensor<I, f32, Cpu, OwnedTape<f32, Cpu>>,
    output: O,
) -> Result<Tensor<O, f32, Cpu, OwnedTape<f32, Cpu>>, <Cpu as HasErr>::Err>
where
    M: TensorCollection<f32, Cpu>,
    I: Shape,
    O: Shape,
{
    let _ = (module, stage, dropout, input, output);
    todo!()
}

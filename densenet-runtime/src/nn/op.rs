//! The stages of a network as dfdx operations.

use dfdx::prelude::*;

use super::{BatchNorm, Classifier, Taped, Untaped};
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

/// One stage of a network before its head, with its shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The first layers.
    Stem(Stem),
    /// A dense block.
    Block(Block),
    /// A transition.
    Transition(Transition),
}

/// One row of logits for each image of a batch.
pub type Logits<B, const CLASSES: usize, T> = Tensor<(B, Const<CLASSES>), f32, Cpu, T>;

/// Runs a stage with running statistics and without a tape: BN and dropout as in inference.
///
/// `module` holds the stage's parameters; `input` is NCHW, and so is what comes back.
///
/// # Errors
/// When the device is out of memory.
pub fn infer<M, I, O, T>(
    module: &M,
    stage: Stage,
    input: Tensor<I, f32, Cpu, T>,
    output: O,
) -> Result<Tensor<O, f32, Cpu, T>, <Cpu as HasErr>::Err>
where
    M: TensorCollection<f32, Cpu>,
    I: Shape,
    O: Shape,
    T: Untaped,
{
    let _ = (module, stage, input, output);
    todo!()
}

/// Runs a stage on a batch's statistics and records it on the tape; updates the running
/// statistics in `module`. `dropout` is the probability with which a value is zeroed.
///
/// # Errors
/// When the device is out of memory.
pub fn train<M, I, O, T>(
    module: &mut M,
    stage: Stage,
    dropout: f64,
    input: Tensor<I, f32, Cpu, T>,
    output: O,
) -> Result<Tensor<O, f32, Cpu, T>, <Cpu as HasErr>::Err>
where
    M: TensorCollection<f32, Cpu>,
    I: Shape,
    O: Shape,
    T: Taped,
{
    let _ = (module, stage, dropout, input, output);
    todo!()
}

/// Like [`infer`], for the head: feature maps become logits.
///
/// # Errors
/// When the device is out of memory.
pub fn infer_head<B, H, W, T, const IN: usize, const CLASSES: usize>(
    norm: &BatchNorm<IN, f32, Cpu>,
    classifier: &Classifier<IN, CLASSES, f32, Cpu>,
    head: Head,
    input: Tensor<(B, Const<IN>, H, W), f32, Cpu, T>,
) -> Result<Logits<B, CLASSES, T>, <Cpu as HasErr>::Err>
where
    B: Dim,
    H: Dim,
    W: Dim,
    T: Untaped,
{
    let _ = (norm, classifier, head, input);
    todo!()
}

/// Like [`train`], for the head: feature maps become logits.
///
/// # Errors
/// When the device is out of memory.
pub fn train_head<B, H, W, T, const IN: usize, const CLASSES: usize>(
    norm: &mut BatchNorm<IN, f32, Cpu>,
    classifier: &mut Classifier<IN, CLASSES, f32, Cpu>,
    head: Head,
    input: Tensor<(B, Const<IN>, H, W), f32, Cpu, T>,
) -> Result<Logits<B, CLASSES, T>, <Cpu as HasErr>::Err>
where
    B: Dim,
    H: Dim,
    W: Dim,
    T: Taped,
{
    let _ = (norm, classifier, head, input);
    todo!()
}

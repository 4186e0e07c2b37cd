//! The stages of a network as dfdx operations, computed by the CPU executor's code.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use dfdx::prelude::*;

use super::slots::{Slots, store_running};
use super::{BatchNorm, Classifier, Taped, Untaped};
use crate::cpu::part::{self, Engine, Mode, Part};
use crate::plan::{Block, Stem, Transition};
use crate::weights::State;

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
}

impl From<Stage> for Part {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Stem(stem) => Self::Stem(stem),
            Stage::Block(block) => Self::Block(block),
            Stage::Transition(transition) => Self::Transition(transition),
        }
    }
}

type Error = <Cpu as HasErr>::Err;

/// The threads and scratch memory of all stages that are computed in this process.
fn engine() -> MutexGuard<'static, Engine> {
    static ENGINE: OnceLock<Mutex<Engine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Mutex::new(Engine::for_this_machine()));
    // The scratch memory of a pass that panicked holds nothing that the next one reads.
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

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
) -> Result<Tensor<O, f32, Cpu, T>, Error>
where
    M: TensorCollection<f32, Cpu>,
    I: Shape,
    O: Shape,
    T: Untaped,
{
    infer_part(&State::of(module), stage.into(), input, output)
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
) -> Result<Tensor<O, f32, Cpu, T>, Error>
where
    M: TensorCollection<f32, Cpu>,
    I: Shape,
    O: Shape,
    T: Taped,
{
    let mut state = State::of(module);
    let slots = Slots::of(module);
    let seed = if dropout > 0.0 {
        input.device().random_u64()
    } else {
        0
    };
    let mode = Training {
        part: stage.into(),
        dropout,
        seed,
    };
    let output = train_part(&mut state, slots, mode, input, output)?;
    store_running(module, &state.running);
    Ok(output)
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
) -> Result<Tensor<(B, Const<CLASSES>), f32, Cpu, T>, Error>
where
    B: Dim,
    H: Dim,
    W: Dim,
    T: Untaped,
{
    let mut state = State::of(norm);
    state.append(classifier);
    let output = (input.shape().0, Const::<CLASSES>);
    infer_part(&state, Part::Head(head), input, output)
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
) -> Result<Tensor<(B, Const<CLASSES>), f32, Cpu, T>, Error>
where
    B: Dim,
    H: Dim,
    W: Dim,
    T: Taped,
{
    let mut state = State::of(norm);
    state.append(classifier);
    let mut slots = Slots::of(norm);
    slots.append(classifier);
    let output = (input.shape().0, Const::<CLASSES>);
    let mode = Training {
        part: Part::Head(head),
        dropout: 0.0,
        seed: 0,
    };
    let output = train_part(&mut state, slots, mode, input, output)?;
    store_running(norm, &state.running);
    Ok(output)
}

fn infer_part<I: Shape, O: Shape, T: Untaped>(
    state: &State,
    part: Part,
    input: Tensor<I, f32, Cpu, T>,
    output: O,
) -> Result<Tensor<O, f32, Cpu, T>, Error> {
    let (input, tape) = input.split_tape();
    let mode = Mode::Infer {
        running: &state.running,
    };
    let (values, _) = part::forward(
        &mut engine(),
        part,
        mode,
        &state.parameters,
        &input.as_vec(),
    );
    Ok(input
        .device()
        .try_tensor_from_vec(values, output)?
        .put_tape(tape))
}

/// How a part trains.
struct Training {
    part: Part,
    dropout: f64,
    seed: u64,
}

/// Runs a part and records it; moves the running statistics in `state`.
fn train_part<I: Shape, O: Shape, T: Taped>(
    state: &mut State,
    slots: Slots,
    training: Training,
    input: Tensor<I, f32, Cpu, T>,
    output: O,
) -> Result<Tensor<O, f32, Cpu, T>, Error> {
    // A gradient lies in memory as its tensor does; a copy of a transposed or broadcast input
    // lies in order, and dfdx takes its gradient back.
    let shape = *input.shape();
    let (input, mut tape) = input.try_reshape_like(&shape)?.split_tape();
    let Training {
        part,
        dropout,
        seed,
    } = training;
    let mode = Mode::Train {
        running: &mut state.running,
        dropout,
        seed,
    };
    let (values, record) = part::forward(
        &mut engine(),
        part,
        mode,
        &state.parameters,
        &input.as_vec(),
    );
    let output = input.device().try_tensor_from_vec(values, output)?;
    let (from, to) = (output.ghost(), input.ghost());
    let trainable = std::mem::take(&mut state.parameters);
    tape.add_backward_op(move |gradients| {
        let doutput = gradients.get_or_alloc_mut(&from)?.to_vec();
        let mut sums = vec![0.0; trainable.len()];
        let dinput = record.backward(&mut engine(), &trainable, &mut sums, &doutput);
        slots.add(gradients, &sums)?;
        let into = gradients.get_or_alloc_mut(&to)?;
        into.iter_mut()
            .zip(dinput)
            .for_each(|(into, value)| *into += value);
        Ok(())
    });
    Ok(output.put_tape(tape))
}

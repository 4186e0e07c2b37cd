//! The stages of a network as dfdx operations, computed by the CPU executor's code.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use dfdx::prelude::*;

use super::slots::{Parameters, Slots};
use crate::cpu::stage::{self, Engine, Mode, Record};
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
/// `module` holds the stage's parameters (for [`Stage::Head`] the norm and the classifier);
/// `input` is NCHW, and so is what comes back, except for the logits of a head.
///
/// # Errors
/// When the device is out of memory.
pub fn infer<M, I, O>(
    module: &M,
    stage: Stage,
    input: Tensor<I, f32, Cpu>,
    output: O,
) -> Result<Tensor<O, f32, Cpu>, Error>
where
    M: TensorCollection<f32, Cpu>,
    I: Shape,
    O: Shape,
{
    let parameters = Parameters::of(module);
    let mode = Mode::Infer { running: &parameters.running };
    let (values, _) =
        stage::forward(&mut engine(), &stage, mode, &parameters.trainable, &input.as_vec());
    input.device().try_tensor_from_vec(values, output)
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
) -> Result<Tensor<O, f32, Cpu, OwnedTape<f32, Cpu>>, Error>
where
    M: TensorCollection<f32, Cpu>,
    I: Shape,
    O: Shape,
{
    // A gradient lies in memory as its tensor does; a copy of a transposed or broadcast input
    // lies in order, and dfdx takes its gradient back.
    let shape = *input.shape();
    let input = input.try_reshape_like(&shape)?;
    let (input, mut tape) = input.split_tape();
    let mut parameters = Parameters::of(module);
    let slots = Slots::of(module);
    let device = input.device().clone();
    let seed = if dropout > 0.0 { device.random_u64() } else { 0 };
    let mode = Mode::Train { running: &mut parameters.running, dropout, seed };
    let (values, record) =
        stage::forward(&mut engine(), &stage, mode, &parameters.trainable, &input.as_vec());
    parameters.store_running(module);
    let output = device.try_tensor_from_vec(values, output)?;
    let (from, to) = (output.ghost(), input.ghost());
    tape.add_backward_op(move |gradients| {
        let doutput = gradients.get_or_alloc_mut(&from)?.to_vec();
        let mut sums = vec![0.0; parameters.trainable.len()];
        let dinput = record.backward(&mut engine(), &parameters.trainable, &mut sums, &doutput);
        slots.add(gradients, &sums)?;
        let into = gradients.get_or_alloc_mut(&to)?;
        into.iter_mut().zip(dinput).for_each(|(into, value)| *into += value);
        Ok(())
    });
    let _: &Record = &Record::default();
    Ok(output.put_tape(tape))
}

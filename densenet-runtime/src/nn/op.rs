//! The stages of a network as dfdx operations, computed by the CPU executor's code.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use densenet_cpu::kernel::normal::Norms;
use densenet_cpu::stage::Drops;
use dfdx::prelude::*;

use super::network::Network;
use super::slots::{Slots, store_running};
use super::stage::{self, Engine, Part};
use super::{BatchNorm, Classifier, ForwardError, Taped, Untaped};
use crate::cpu::{self, Level};
use crate::executor::{ExecutorError, check_training};
use crate::plan::{Block, FrozenTensors, Head, Precision, Stem, Transition};
use crate::weights::{State, each_tensor};

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

/// The threads and scratch memory that all stages in this process share.
fn engine() -> MutexGuard<'static, Engine> {
    static ENGINE: OnceLock<Mutex<Engine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| {
        Mutex::new(Engine::new(
            cpu::threads(0),
            Level::detect(),
            Precision::F32,
        ))
    });
    // The next pass reads nothing that a panicked pass left in the scratch memory.
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks that a batch can train a network, before any of its stages runs.
///
/// # Errors
/// If the batch is a single image whose feature maps become one pixel: BN would normalise over
/// one value; or if one of the network's tensors is a view.
pub fn trainable<N: Network>(network: &N, batch: impl Dim) -> Result<(), ForwardError> {
    let none = FrozenTensors::default();
    check_training(&N::PLAN, batch.size(), none, 0)?;
    Slots::of(network).map(drop)
}

/// Runs a stage with running statistics and without a tape: BN and dropout as in inference.
///
/// `module` holds the stage's parameters. Input and output are NCHW.
///
/// # Errors
/// If the device is out of memory, or the number of parameters or values does not fit the stage.
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

/// Runs a stage with the batch's statistics, records it on the tape, and updates the running
/// statistics in `module`. `dropout` is the probability that a value is zeroed.
///
/// # Errors
/// As [`infer`]; and if BN would normalise over a single value, or a tensor of the stage is a view.
pub fn train<M, I, O, T>(
    module: &mut M,
    stage: Stage,
    dropout: f64,
    input: Tensor<I, f32, Cpu, T>,
    output: O,
) -> Result<Tensor<O, f32, Cpu, T>, ForwardError>
where
    M: TensorCollection<f32, Cpu>,
    I: Shape,
    O: Shape,
    T: Taped,
{
    let mut state = State::of(module);
    let part = stage.into();
    check_part(&state, part, input.shape(), &output)?;
    let slots = Slots::of(module)?;
    let mut seed = None;
    if dropout > 0.0 {
        // By the network's device: images may each come from a new one, which would draw the same again.
        each_tensor(module, |own| {
            seed.get_or_insert_with(|| own.tensor.draw());
        });
    }
    let drops = Drops {
        probability: dropout,
        seed: seed.unwrap_or_default(),
    };
    let mode = CheckedTraining { part, drops };
    let output = train_part(&mut state, slots, mode, input, output)?;
    store_running(module, &state.running)?;
    Ok(output)
}

/// Like [`infer`], for the head: feature maps become logits.
///
/// # Errors
/// As [`infer`].
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
/// As [`train`].
pub fn train_head<B, H, W, T, const IN: usize, const CLASSES: usize>(
    norm: &mut BatchNorm<IN, f32, Cpu>,
    classifier: &mut Classifier<IN, CLASSES, f32, Cpu>,
    head: Head,
    input: Tensor<(B, Const<IN>, H, W), f32, Cpu, T>,
) -> Result<Tensor<(B, Const<CLASSES>), f32, Cpu, T>, ForwardError>
where
    B: Dim,
    H: Dim,
    W: Dim,
    T: Taped,
{
    let mut state = State::of(norm);
    state.append(classifier);
    let mut slots = Slots::of(norm)?;
    slots.append(classifier)?;
    let part = Part::Head(head);
    let output = (input.shape().0, Const::<CLASSES>);
    check_part(&state, part, input.shape(), &output)?;
    let mode = CheckedTraining {
        part,
        drops: Drops::default(),
    };
    let output = train_part(&mut state, slots, mode, input, output)?;
    store_running(norm, &state.running)?;
    Ok(output)
}

/// The number of images of an input, if the numbers of input values, output values and parameters
/// fit the part.
fn images<I: Shape, O: Shape>(
    state: &State,
    part: Part,
    input: &I,
    output: &O,
) -> Result<usize, Error> {
    let numbers = (state.parameters.len(), state.running.len());
    let (input, output) = (input.num_elements(), output.num_elements());
    part.images(numbers, input, output)
        .ok_or(Error::WrongNumElements)
}

/// Checks, before anything changes, that a part can train on an input.
fn check_part<I: Shape, O: Shape>(
    state: &State,
    part: Part,
    input: &I,
    output: &O,
) -> Result<(), ForwardError> {
    let images = images(state, part, input, output)?;
    if part.can_train(images) {
        return Ok(());
    }
    Err(match images {
        0 => ForwardError::Empty,
        _ => ForwardError::Batch(ExecutorError::OneValue {
            stage: part.name().into(),
        }),
    })
}

fn infer_part<I: Shape, O: Shape, T: Untaped>(
    state: &State,
    part: Part,
    input: Tensor<I, f32, Cpu, T>,
    output: O,
) -> Result<Tensor<O, f32, Cpu, T>, Error> {
    images(state, part, input.shape(), &output)?;
    let (input, tape) = input.split_tape();
    let (values, _) = stage::forward(
        &mut engine(),
        part,
        Norms::Running(&state.running),
        Drops::default(),
        &state.parameters,
        &input.as_vec(),
    );
    Ok(input
        .device()
        .try_tensor_from_vec(values, output)?
        .put_tape(tape))
}

/// The checked settings with which a part trains.
struct CheckedTraining {
    part: Part,
    drops: Drops,
}

/// Runs a part and records it; updates the running statistics in `state`.
fn train_part<I: Shape, O: Shape, T: Taped>(
    state: &mut State,
    slots: Slots,
    training: CheckedTraining,
    input: Tensor<I, f32, Cpu, T>,
    output: O,
) -> Result<Tensor<O, f32, Cpu, T>, ForwardError> {
    // A gradient has its tensor's layout in memory. A transposed or broadcast input is copied into
    // a contiguous tensor, and dfdx propagates the copy's gradient.
    let shape = *input.shape();
    let (input, mut tape) = input.try_reshape_like(&shape)?.split_tape();
    let (values, record) = stage::forward(
        &mut engine(),
        training.part,
        Norms::Batch(&mut state.running),
        training.drops,
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

//! An executor on the CPU; states and logits in and out of any.

use densenet_runtime::cpu::{self, Precision};
use densenet_runtime::plan::{Plan, Recompute};
use densenet_runtime::weights::State;
use densenet_runtime::{Arena, Batch, Executor};

/// An executor on one thread of the CPU: tests run side by side.
///
/// # Panics
/// If it cannot be made.
pub fn on_cpu(
    plan: &Plan,
    batch: usize,
    recompute: Recompute,
    precision: Precision,
) -> cpu::CpuExecutor {
    let options = cpu::CpuOptions {
        recompute,
        precision,
        threads: 1,
        ..cpu::CpuOptions::for_batch(batch)
    };
    cpu::CpuExecutor::new(plan.clone(), options).unwrap_or_else(|error| panic!("{error}"))
}

/// Makes a state the executor's.
///
/// # Panics
/// If it is of another network.
pub fn load(executor: &mut (impl Executor + ?Sized), state: &State) {
    for (arena, values) in [
        (Arena::Parameters, &state.parameters),
        (Arena::Running, &state.running),
    ] {
        let written = executor.write(arena, values);
        written.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// One of the executor's arenas.
///
/// # Panics
/// If the device fails.
pub fn read(executor: &(impl Executor + ?Sized), arena: Arena) -> Vec<f32> {
    let length = match arena {
        Arena::Running | Arena::AverageRunning => executor.plan().running_count(),
        _ => executor.plan().parameter_count(),
    };
    let mut values = vec![f32::NAN; length];
    let read = executor.read(arena, &mut values);
    read.unwrap_or_else(|error| panic!("{error}"));
    values
}

/// The executor's parameters and running statistics.
pub fn state(executor: &(impl Executor + ?Sized)) -> State {
    State {
        parameters: read(executor, Arena::Parameters),
        running: read(executor, Arena::Running),
    }
}

/// Logits with the running statistics: batch x classes.
///
/// # Panics
/// If the batch does not fit.
pub fn evaluate(executor: &mut (impl Executor + ?Sized), batch: Batch<'_>) -> Vec<f32> {
    let evaluated = executor.evaluate(batch);
    evaluated.unwrap_or_else(|error| panic!("{error}"));
    let images = batch.images(executor.plan());
    logits(executor, images)
}

/// Logits of the last pass: images x classes.
///
/// # Panics
/// If it was of another number of images.
pub fn logits(executor: &(impl Executor + ?Sized), images: usize) -> Vec<f32> {
    let mut logits = vec![f32::NAN; images * executor.plan().classes()];
    let read = executor.logits(&mut logits);
    read.unwrap_or_else(|error| panic!("{error}"));
    logits
}

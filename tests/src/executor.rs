//! States and logits in and out of an executor.

use densenet_runtime::weights::State;
use densenet_runtime::{Arena, Batch, Executor};

/// Makes a state the executor's.
///
/// # Panics
/// When it is of another network.
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
/// When the device fails.
pub fn read(executor: &(impl Executor + ?Sized), arena: Arena) -> Vec<f32> {
    let length = match arena {
        Arena::Running => executor.plan().running_count(),
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
/// When the batch does not fit.
pub fn evaluate(executor: &mut (impl Executor + ?Sized), batch: Batch<'_>) -> Vec<f32> {
    let evaluated = executor.evaluate(batch);
    evaluated.unwrap_or_else(|error| panic!("{error}"));
    let mut logits = vec![f32::NAN; batch.labels.len() * executor.plan().classes()];
    let read = executor.logits(&mut logits);
    read.unwrap_or_else(|error| panic!("{error}"));
    logits
}

//! A run of a few seconds with everything that a run has: dropout, shuffling, augmentation, a
//! checkpoint every two steps, the best one, metrics and curves.

use std::sync::Arc;

use densenet_runtime::data::{DataError, InMemory, Loader, ShiftAndFlip};
use densenet_runtime::densenet;
use densenet_runtime::train::{
    Config, Fit, Interrupt, RunFolder, Schedule, Summary, TensorBoard, Trainer,
};
use dfdx::prelude::*;

use crate::random;

/// The error of a run.
type Failure = Box<dyn std::error::Error>;

densenet! {
    /// A checkpoint of it has a few KB.
    pub Tiny {
        blocks: [1, 1],
        k: 2,
        theta: 0.5,
        bottleneck,
        init: 4,
        input: [3, 8, 8],
        classes: 3,
        dropout: 0.2,
    }
}

/// The settings of a run.
pub fn config(seed: u64, epochs: u32) -> Config {
    Config {
        epochs,
        batch: 8,
        schedule: Schedule::cosine(0.1, 0.5),
        label_smoothing: 0.1,
        seed,
        // Threads that wait for each other are slow on a machine that is busy.
        threads: 1,
        ..Config::cifar()
    }
}

/// Continues the run of a folder to its end, or starts it.
///
/// # Errors
/// If a file cannot be read or written, or is not of this run.
pub fn fit(folder: &RunFolder, seed: u64, epochs: u32) -> Result<Summary, Failure> {
    run(folder, seed, epochs, None, false)
}

/// Continues a run up to a step, or starts it, and also writes TensorBoard's event files.
///
/// # Errors
/// As [`fit`].
pub fn fit_watched(folder: &RunFolder, epochs: u32, steps: u64) -> Result<Summary, Failure> {
    run(folder, 1, epochs, Some(steps), true)
}

fn run(
    folder: &RunFolder,
    seed: u64,
    epochs: u32,
    steps: Option<u64>,
    watched: bool,
) -> Result<Summary, Failure> {
    let checkpoint = folder.checkpoint();
    let is_resumed = checkpoint.exists();
    let settings = config(seed, epochs);
    let settings = match is_resumed {
        // The number of threads is no part of a run's settings.
        true => Config {
            threads: settings.threads,
            ..Config::of_checkpoint(&checkpoint)?
        },
        false => settings,
    };
    let train = images(83, 5)?;
    let fill = train.mean_colour();
    let train = Arc::new(train.augmented(ShiftAndFlip::paper(fill))?);
    let train = Loader::training(train, settings.batch)?.seeded(settings.seed);
    let validation = Loader::evaluation(Arc::new(images(40, 9)?), settings.batch)?;
    let mut trainer = Trainer::new(model(seed), settings)?;
    if is_resumed {
        trainer.resume(&checkpoint)?;
    }
    let fit = Fit {
        steps,
        checkpoint: Some(checkpoint),
        checkpoint_every: Some(2),
        best: Some(folder.best()),
        interrupt: Interrupt::on_ctrl_c()?,
        ..Fit::default()
    };
    let mut observers = folder.observers(&trainer, "A small run")?;
    if watched {
        observers.push(Box::new(TensorBoard::new(folder.tensorboard())));
    }
    Ok(trainer.fit(&train, &validation, &fit, &mut observers)?)
}

/// The network with fresh weights.
pub fn model(seed: u64) -> Tiny {
    Cpu::seed_from_u64(seed).build_module::<Tiny, f32>()
}

/// Noise, a little brighter from class to class.
fn images(count: u32, seed: u32) -> Result<InMemory, DataError> {
    let (images, labels) = random::bright_images(count, 3 * 8 * 8, 3, 25, seed);
    let classes = ["dark", "middle", "bright"].map(str::to_owned).to_vec();
    InMemory::new([3, 8, 8], images, labels, classes)
}

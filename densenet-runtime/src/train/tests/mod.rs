//! The loop, its checkpoints and its files, on a small executor.

mod checkpoint;
mod diverged;
mod double;
mod fit;
mod folder;
mod plateau;
mod resumed;
mod step;
mod tensorboard;

use std::error::Error;
use std::ops::ControlFlow;

use double::{CLASSES, PIXELS, Regression};

use super::runner::Runner;
use super::{Batches, Config, Interrupt, Observer, Schedule, StepReport, TrainError};
use crate::{Batch, Normalization, Pixels};

/// Images whose class is the brightest of their first pixels, in an order of each epoch's own.
struct Images {
    pixels: Vec<f32>,
    labels: Vec<u32>,
    batch: usize,
    classes: Vec<String>,
    normalization: Option<Normalization>,
}

impl Images {
    fn new(count: usize, batch: usize) -> Self {
        let mut state = 1u32;
        let mut pixels = Vec::new();
        let mut labels = Vec::new();
        for image in 0..count {
            let label = image % CLASSES;
            labels.push(label as u32);
            for pixel in 0..PIXELS {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
                pixels.push(noise + if pixel == label { 1.0 } else { 0.0 });
            }
        }
        Self {
            pixels,
            labels,
            batch,
            classes: Vec::new(),
            normalization: None,
        }
    }

    fn named(self, classes: &[&str]) -> Self {
        let classes = classes.iter().map(ToString::to_string).collect();
        Self { classes, ..self }
    }

    fn normalized(self, mean: f32, std: f32) -> Self {
        let normalization = Normalization {
            mean: vec![mean],
            std: vec![std],
        };
        Self {
            normalization: Some(normalization),
            ..self
        }
    }

    /// A batch of the first images.
    fn first(&self, count: usize) -> Batch<'_> {
        Batch::of_classes(
            Pixels::Nchw(&self.pixels[..count * PIXELS]),
            &self.labels[..count],
        )
    }
}

impl Batches for Images {
    fn batches(&self) -> u64 {
        self.labels.len().div_ceil(self.batch) as u64
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn normalization(&self) -> Option<&Normalization> {
        self.normalization.as_ref()
    }

    fn visit(
        &self,
        epoch: u32,
        first: u64,
        each: &mut dyn FnMut(Batch<'_>, usize) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let count = self.labels.len();
        let order: Vec<usize> = (0..count)
            .map(|index| (index * 7 + epoch as usize * 5) % count)
            .collect();
        for images in order.chunks(self.batch).skip(first as usize) {
            let labels: Vec<u32> = images.iter().map(|&image| self.labels[image]).collect();
            let pixels: Vec<f32> = images
                .iter()
                .flat_map(|&image| &self.pixels[image * PIXELS..][..PIXELS])
                .copied()
                .collect();
            let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
            if each(batch, 1).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn config() -> Config {
    Config {
        epochs: 3,
        batch: 8,
        schedule: Schedule::halves(0.2),
        seed: 42,
        ..Config::cifar()
    }
}

/// With dropout, so that the seeds matter.
fn runner(config: Config) -> Runner {
    let executor = Regression::new(0.2, 8);
    Runner::new("Regression", Box::new(executor), config).unwrap()
}

/// Remembers each step.
#[derive(Default)]
struct Memory(Vec<StepReport>);

impl Memory {
    /// Step, epoch, loss, rate: all that must repeat.
    fn steps(&self) -> Vec<(u64, u32, u64, u32)> {
        let of = |r: &StepReport| (r.step, r.epoch, r.loss.to_bits(), r.learning_rate.to_bits());
        self.0.iter().map(of).collect()
    }
}

impl Observer for Memory {
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        self.0.push(*report);
        Ok(())
    }
}

/// Interrupts after a step.
struct InterruptAt(u64, Interrupt, Memory);

impl Observer for InterruptAt {
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        if report.step == self.0 {
            self.1.request();
        }
        self.2.step(report)
    }
}

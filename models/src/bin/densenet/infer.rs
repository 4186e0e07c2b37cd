//! Runs a network on pictures: batches go through its frozen form while others are decoded.

use std::error::Error;
use std::ops::Range;

use clap::Args;
use densenet_runtime::cpu::{self, FrozenOptions, Precision};
use densenet_runtime::data::{LabelKind, Loader, OnBroken};
use densenet_runtime::{DeviceChoice, Frozen, MapsOf, Outputs, Pixels};

use crate::pictures::Set;
use crate::saved::Saved;

/// The options of commands that run a trained network.
#[derive(Args)]
pub struct InferenceOptions {
    /// The number of pictures in a batch.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// The device that computes: cpu, cuda (the first CUDA device), cuda:N, or best.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// The number of CPU threads [default: OMP_NUM_THREADS, or else all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// The number format of products: f32 or bf16.
    #[arg(long, value_name = "f32|bf16", default_value_t)]
    precision: Precision,
}

/// The outputs that are wanted beside logits and features.
#[derive(Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// The outputs that it is frozen for.
    pub outputs: Outputs,
    /// The classes that have maps.
    pub of: MapsOf<'a>,
}

/// A network's outputs for a picture.
pub struct Said<'a> {
    /// The picture's index in its set.
    pub index: usize,
    /// Its logits, averaged over its views: one for each class.
    pub logits: &'a [f32],
    /// What the classifier reads, likewise.
    pub features: &'a [f32],
    /// The pixels of its first view.
    pub pixels: Pixels<'a>,
    /// Class maps of its first view, each with its class: height x width.
    pub maps: &'a [(usize, &'a [f32])],
}

/// What is done with each answer.
pub type Each<'a> = dyn FnMut(Said<'_>) -> Result<(), Box<dyn Error>> + 'a;

impl InferenceOptions {
    /// Calls `each` with the outputs for each readable picture, in order, until it returns an
    /// error. Unreadable pictures are reported on standard error; returns their number.
    pub fn each(
        &self,
        saved: &Saved,
        set: &Set,
        wanted: Wanted<'_>,
        each: &mut Each<'_>,
    ) -> Result<usize, Box<dyn Error>> {
        let plan = &saved.plan;
        let views = set.views();
        let pictures = usize::from(self.batch_size)
            .min(plan.countable_batch() / views)
            .min(set.len())
            .max(1);
        let mut network = self.frozen(saved, pictures * views, wanted.outputs)?;
        let loader = Loader::evaluation(set.clone(), pictures)?.on_broken(OnBroken::Skip);
        let (mut logits, mut features) = (vec![0.0; plan.classes()], vec![0.0; plan.features()]);
        for batch in loader.epoch(0) {
            let batch = batch?;
            // None of its pictures could be read.
            if batch.indices().is_empty() {
                continue;
            }
            let pixels = batch.as_batch(set.normalization()).pixels;
            let images = batch.indices().len() * views;
            let said = network.infer_with(pixels, images, wanted.of)?;
            let len = pixels.count() / images;
            for (number, &index) in batch.indices().iter().enumerate() {
                let first = number * views;
                average(said.logits, first..first + views, &mut logits);
                average(said.features, first..first + views, &mut features);
                let maps: Vec<_> = said.maps_of(first).collect();
                each(Said {
                    index,
                    logits: &logits,
                    features: &features,
                    pixels: pixels.slice(first * len..(first + 1) * len),
                    maps: &maps,
                })?;
            }
        }
        Ok(loader.skipped().len())
    }

    /// The frozen form of a network, for this many images at a time.
    pub fn frozen(
        &self,
        saved: &Saved,
        batch: usize,
        outputs: Outputs,
    ) -> Result<Frozen, Box<dyn Error>> {
        let state = saved.state()?;
        let options = FrozenOptions {
            threads: cpu::threads(self.threads.map_or(0, usize::from)),
            precision: self.precision,
            outputs,
            ..FrozenOptions::for_batch(batch)
        };
        let (parameters, running) = (&state.parameters, &state.running);
        let device = self.device.open()?;
        Ok(Frozen::on(
            &device,
            &saved.plan,
            parameters,
            running,
            options,
        )?)
    }
}

/// The mean of some rows of a table.
fn average(rows: &[f32], of: Range<usize>, into: &mut [f32]) {
    let (width, count) = (into.len(), of.len() as f32);
    let rows = &rows[of.start * width..of.end * width];
    for (column, mean) in into.iter_mut().enumerate() {
        *mean = rows.iter().skip(column).step_by(width).sum::<f32>() / count;
    }
}

/// The probability of each class.
pub fn probabilities(logits: &[f32], kind: LabelKind) -> Vec<f64> {
    let logits = logits.iter().map(|&logit| f64::from(logit));
    match kind {
        LabelKind::Independent => logits.map(|logit| 1.0 / (1.0 + (-logit).exp())).collect(),
        LabelKind::Exclusive => {
            let highest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = logits.map(|logit| (logit - highest).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.into_iter().map(|power| power / sum).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_kind_of_classes() {
        let close = |found: Vec<f64>, expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "{found} {expected}");
            }
        };
        // torch.softmax and torch.sigmoid of these, in f64.
        let logits = [1.0, -2.0, 1000.0];
        close(
            probabilities(&logits, LabelKind::Exclusive),
            &[0.0, 0.0, 1.0],
        );
        close(
            probabilities(&logits[..2], LabelKind::Exclusive),
            &[0.952_574_126_822_433_2, 0.047_425_873_177_566_78],
        );
        close(
            probabilities(&[1.0, -2.0, -1000.0], LabelKind::Independent),
            &[0.731_058_578_630_004_9, 0.119_202_922_022_117_56, 0.0],
        );
    }
}

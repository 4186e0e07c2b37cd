//! Precise BN: before an evaluation the running statistics are recomputed with the current weights.
//! They are those of all images together, are saved with the weights, and change no step.

use std::error::Error;
use std::ops::ControlFlow;

use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::plan::{Plan, Span};
use densenet_runtime::train::{Batches, Config, Fit, Schedule, Trainer};
use densenet_runtime::weights::State;
use densenet_runtime::{Arena, Batch, Network, Pixels, Step, densenet};
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::executor::{read, state};
use densenet_tests::plain::Plain;
use densenet_tests::random;

densenet! {
    /// With dropout, which is off when statistics are recomputed.
    Small {
        blocks: [2, 2], k: 4, theta: 0.5, bottleneck, input: [3, 9, 9], classes: 4, dropout: 0.2
    }
}

const PLAN: Plan = Small::PLAN;
/// Images of each batch; the last is smaller, as an epoch's last may be.
const SIZES: [usize; 4] = [6, 6, 6, 2];

/// The same batches in every epoch.
struct Fixed(Vec<(Vec<f32>, Vec<u32>)>);

impl Fixed {
    fn new() -> Self {
        let batch = |(seed, &images)| random::batch(&PLAN, images, seed);
        Self((0..).zip(&SIZES).map(batch).collect())
    }

    /// The classes differ in brightness.
    fn to_learn() -> Self {
        let mut all = Self::new();
        for (pixels, labels) in &mut all.0 {
            let images = pixels.chunks_exact_mut(3 * 9 * 9).zip(labels);
            for (image, label) in images {
                image.iter_mut().for_each(|x| *x += 2.0 * *label as f32);
            }
        }
        all
    }
}

impl Batches for Fixed {
    fn batches(&self) -> u64 {
        self.0.len() as u64
    }

    fn visit(
        &self,
        _: u32,
        first: u64,
        each: &mut dyn FnMut(Batch<'_>, usize) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        for (pixels, labels) in &self.0[first as usize..] {
            let pixels = Pixels::Nchw(pixels);
            if each(Batch::of_classes(pixels, labels), 1).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn config(precise_bn: u32) -> Config {
    Config {
        epochs: 2,
        batch: 6,
        schedule: Schedule::constant(0.1),
        precise_bn,
        // Threads that wait for each other are slow on a machine that is busy.
        threads: 1,
        ..Config::cifar()
    }
}

fn trained(config: Config, images: &Fixed, fit: &Fit) -> (Trainer<Small>, f64) {
    let model = Cpu::seed_from_u64(1).build_module::<Small, f32>();
    let mut trainer = Trainer::new(model, config).unwrap();
    let summary = trainer.fit(images, images, fit, &mut ()).unwrap();
    let loss = summary.evaluation.unwrap().loss;
    (trainer, loss)
}

/// The state after a run that does not change the weights.
fn recomputed(batches: u32) -> State {
    let still = Config {
        schedule: Schedule::constant(0.0),
        ..config(batches)
    };
    let (mut trainer, _) = trained(still, &Fixed::new(), &Fit::default());
    State::of(trainer.model().unwrap())
}

/// Unbiased.
fn mean_and_variance(values: &[f64]) -> [f32; 2] {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    [mean as f32, (squares / (count - 1.0)) as f32]
}

/// Against the stem's maps, convolved in plain loops: no BN comes before them.
#[test]
fn the_first_statistics_are_those_of_all_images_together() {
    let state = recomputed(SIZES.len() as u32);
    let tensors = PLAN.tensors();
    let weight = tensors.stem.conv.weight.of(&state.parameters);
    let images = Fixed::new().0;
    let images = images
        .iter()
        .flat_map(|(pixels, _)| pixels.chunks_exact(3 * 81));
    let images: Vec<&[f32]> = images.collect();
    let pixel = |image: &[f32], c: usize, y: isize, x: isize| {
        let inside = (0..9).contains(&y) && (0..9).contains(&x);
        let at = || image[c * 81 + y as usize * 9 + x as usize];
        if inside { f64::from(at()) } else { 0.0 }
    };
    let norm = &tensors.blocks[0][0].norm1;
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for (map, weight) in weight.chunks_exact(27).enumerate() {
        let mut values = Vec::new();
        for &image in &images {
            for at in 0..81 {
                let tap = |(tap, w): (usize, &f32)| {
                    let (y, x) = (at / 9 + tap / 3 % 3, at % 9 + tap % 3);
                    f64::from(*w) * pixel(image, tap / 9, y as isize - 1, x as isize - 1)
                };
                values.push(weight.iter().enumerate().map(tap).sum::<f64>());
            }
        }
        let at = |span: Span| span.of(&state.running)[map];
        found.extend([at(norm.mean), at(norm.variance)]);
        expected.extend(mean_and_variance(&values));
    }
    let mut compare = Comparison::within(TOLERANCE);
    compare.add("statistics", &found, &expected);
    compare.assert("the first BN");
}

/// Against a network in plain loops, whose running statistics start from 0 and give a batch's.
#[test]
fn all_statistics_are_those_of_the_batches_together_without_dropout() {
    for batches in [1, 3, SIZES.len()] {
        let found = recomputed(batches as u32);
        let plain = PLAN.with_dropout(0.0).unwrap();
        let (mut first, mut second) = (
            vec![0.0; found.running.len()],
            vec![0.0; found.running.len()],
        );
        let values = |images: usize, pixels: usize| (images * pixels) as f64;
        let shrink = |count: f64| (count - 1.0) / count;
        let all: usize = SIZES[..batches].iter().sum();
        for ((pixels, labels), images) in Fixed::new().0.iter().zip(SIZES).take(batches) {
            let start = State {
                running: vec![0.0; found.running.len()],
                ..found.clone()
            };
            let mut network = Plain::new(&plain, &start, |value| value);
            network.differentiate(pixels, labels, Step::default());
            let share = images as f64 / all as f64;
            for (norm, pixels) in PLAN.norms() {
                for (mean, variance) in norm.mean.range().zip(norm.variance.range()) {
                    let m = 10.0 * f64::from(network.state.running[mean]);
                    let v = 10.0 * f64::from(network.state.running[variance]);
                    first[mean] += share * m;
                    second[variance] += share * (v * shrink(values(images, pixels)) + m * m);
                }
            }
        }
        let mut expected = found.clone();
        for (norm, pixels) in PLAN.norms() {
            for (mean, variance) in norm.mean.range().zip(norm.variance.range()) {
                let biased = second[variance] - first[mean] * first[mean];
                expected.running[mean] = first[mean] as f32;
                expected.running[variance] = (biased / shrink(values(all, pixels))) as f32;
            }
        }
        let mut compare = Comparison::within(TOLERANCE);
        compare.add_state("recomputed", &PLAN, &found, &expected);
        compare.assert("precise BN");
    }
}

#[test]
fn they_change_no_step_and_leave_the_statistics_of_training_as_they_are() {
    let images = Fixed::new();
    let [without, with] = [0, 3].map(|batches| {
        let (mut trainer, _) = trained(config(batches), &images, &Fit::default());
        let numbers = [Arena::Parameters, Arena::Momentum, Arena::Running]
            .map(|arena| read(trainer.executor(), arena));
        (numbers, State::of(trainer.model().unwrap()))
    });
    assert!(with.0 == without.0, "the executor's numbers");
    assert_ne!(with.1.running, without.1.running);
}

#[test]
fn a_checkpoint_carries_those_that_its_weights_were_evaluated_with() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("checkpoint.safetensors");
    let best = folder.path().join("best.safetensors");
    let images = Fixed::new();
    let fit = Fit {
        checkpoint: Some(checkpoint.clone()),
        best: Some(best.clone()),
        ..Fit::default()
    };
    let (mut trainer, loss) = trained(config(3), &images, &fit);
    let model = State::of(trainer.model().unwrap());
    assert!(State::read(&PLAN, &checkpoint).unwrap() == model);
    State::read(&PLAN, &best).unwrap();
    // As weights, by a trainer without precise BN.
    let mut plain = Trainer::new(Cpu::default().build_module::<Small, f32>(), config(0)).unwrap();
    for (arena, numbers) in [
        (Arena::Parameters, &model.parameters),
        (Arena::Running, &model.running),
    ] {
        plain.executor_mut().write(arena, numbers).unwrap();
    }
    assert_eq!(plain.evaluate(&images).unwrap().loss, loss);
    // By a resumed run, which has those of training as well.
    let mut resumed = Trainer::new(Cpu::default().build_module::<Small, f32>(), config(3)).unwrap();
    resumed.resume(&checkpoint).unwrap();
    assert_eq!(resumed.evaluate(&images).unwrap().loss, loss);
    assert!(state(resumed.executor()) == state(trainer.executor()));
    assert_ne!(state(resumed.executor()).running, model.running);
}

/// After few steps with a high learning rate the statistics of training lag far behind the weights.
#[test]
fn a_short_run_is_judged_by_the_network_that_it_has_trained() {
    let images = Fixed::to_learn();
    let loss = |batches| trained(config(batches), &images, &Fit::default()).1;
    let chance = (PLAN.classes() as f64).ln();
    let (without, with) = (loss(0), loss(4));
    assert!(
        with < chance && with < 0.7 * without,
        "{with}, without {without}"
    );
}

#[test]
fn a_run_with_other_precise_bn_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("checkpoint.safetensors");
    let fit = Fit {
        checkpoint: Some(checkpoint.clone()),
        ..Fit::default()
    };
    trained(config(3), &Fixed::new(), &fit);
    let mut other = Trainer::new(Cpu::default().build_module::<Small, f32>(), config(2)).unwrap();
    let message = other.resume(&checkpoint).unwrap_err().to_string();
    assert!(
        message.contains("precise BN was 3 batches and is 2 batches"),
        "{message}"
    );
}

//! The CPU executor computes what dfdx's autodiff computes over a network of dfdx's public
//! operations, for specs of every kind that have no golden file: outputs, gradients and running
//! statistics, training and evaluating, at several batch sizes.

use densenet_runtime::plan::{BlockSpec, Plan, Ratio, Recompute, Spec, StemKind};
use densenet_runtime::{Arena, Batch, Executor, Pixels, Step, cpu};
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::executor::{evaluate, load, logits, read};
use densenet_tests::random;
use densenet_tests::reference::{Derivative, Reference};

/// How far values must be from the kinks of ReLU and max pooling: some times the rounding error
/// of a normalised value in f32.
const MARGIN: f64 = 2e-6;

struct Kind<'a> {
    blocks: &'a [(usize, usize)],
    theta: Ratio,
    bottleneck: Option<usize>,
    stem: StemKind,
    init: usize,
    input: [usize; 3],
    classes: usize,
}

fn check(kind: Kind<'_>, images: usize) {
    let spec = Spec {
        blocks: kind
            .blocks
            .iter()
            .map(|&(layers, growth)| BlockSpec { layers, growth })
            .collect(),
        theta: kind.theta,
        bottleneck: kind.bottleneck,
        stem: kind.stem,
        init: kind.init,
        input: kind.input,
        classes: kind.classes,
        dropout: 0.0,
    };
    let plan = spec.plan().unwrap();
    // The reference says how near a seed's values come to a kink.
    let trial = (0..500).find_map(|seed| Trial::away_from_kinks(&plan, images, seed));
    let trial = trial.expect("a seed whose values keep away from the kinks");
    for (recompute, threads) in [(Recompute::Nothing, 1), (Recompute::Bottlenecks, 2)] {
        trial.compare(&plan, recompute, threads);
    }
}

/// A state and a batch, and the reference's results for them.
struct Trial {
    seed: u64,
    images: Vec<f32>,
    labels: Vec<u32>,
    evaluated: Vec<f32>,
    derivative: Derivative,
    running: Vec<f32>,
}

impl Trial {
    fn away_from_kinks(plan: &Plan, images: usize, seed: u64) -> Option<Self> {
        let state = random::state(plan, seed);
        let (images, labels) = random::batch(plan, images, seed + 1000);
        let mut reference = Reference::new(plan, &state);
        let evaluated = reference.evaluate(&images);
        let derivative = reference.differentiate(&images, &labels);
        (derivative.margin > MARGIN).then(|| Self {
            seed,
            images,
            labels,
            evaluated,
            derivative,
            running: reference.running(),
        })
    }

    fn compare(&self, plan: &Plan, recompute: Recompute, threads: usize) {
        let options = cpu::CpuOptions {
            recompute,
            threads,
            ..cpu::CpuOptions::for_batch(self.labels.len())
        };
        let mut executor = cpu::CpuExecutor::new(plan.clone(), options).unwrap();
        load(&mut executor, &random::state(plan, self.seed));
        let batch = Batch::of_classes(Pixels::Nchw(&self.images), &self.labels);
        let mut compare = Comparison::within(TOLERANCE);
        let found = evaluate(&mut executor, batch);
        compare.add("evaluation logits", &found, &self.evaluated);
        let step = Step {
            label_smoothing: 0.0,
            scale: 1.0,
            accumulate: false,
            seed: 0,
        };
        let outcome = executor.differentiate(batch, step).unwrap();
        let expected = &self.derivative;
        compare.add("loss", &[outcome.loss as f32], &[expected.loss as f32]);
        let found = logits(&executor, self.labels.len());
        compare.add("logits", &found, &expected.logits);
        let gradients = read(&executor, Arena::Gradients);
        compare.add_parameters("gradient of", plan, &gradients, &expected.gradients);
        let running = read(&executor, Arena::Running);
        compare.add_running("running", plan, &running, &self.running);
        compare.assert(&format!("seed {}, {recompute:?} recomputed", self.seed));
    }
}

#[test]
fn plain_layers_of_a_growth_rate_beyond_a_vectors_width() {
    check(
        Kind {
            blocks: &[(2, 19), (1, 33)],
            theta: Ratio::ONE,
            bottleneck: None,
            stem: StemKind::Cifar,
            init: 16,
            input: [3, 8, 10],
            classes: 10,
        },
        3,
    );
}

#[test]
fn a_deep_block_with_the_smallest_growth_rate() {
    check(
        Kind {
            blocks: &[(12, 1)],
            theta: Ratio::ONE,
            bottleneck: Some(4),
            stem: StemKind::Cifar,
            init: 2,
            input: [3, 9, 7],
            classes: 4,
        },
        4,
    );
}

#[test]
fn compression_to_a_single_map() {
    check(
        Kind {
            blocks: &[(1, 2), (1, 2)],
            theta: Ratio::new(1, 5),
            bottleneck: None,
            stem: StemKind::Cifar,
            init: 3,
            input: [2, 6, 6],
            classes: 3,
        },
        5,
    );
}

#[test]
fn bc_with_wide_maps() {
    check(
        Kind {
            blocks: &[(3, 12), (3, 12)],
            theta: Ratio::new(1, 2),
            bottleneck: Some(4),
            stem: StemKind::Cifar,
            init: 24,
            input: [3, 8, 8],
            classes: 100,
        },
        2,
    );
}

#[test]
fn one_image_is_a_batch() {
    check(
        Kind {
            blocks: &[(2, 6), (2, 6)],
            theta: Ratio::new(1, 2),
            bottleneck: Some(4),
            stem: StemKind::Cifar,
            init: 12,
            input: [3, 16, 16],
            classes: 10,
        },
        1,
    );
}

#[test]
fn the_imagenet_stem_on_the_smallest_input_of_three_blocks() {
    check(
        Kind {
            blocks: &[(1, 4), (2, 4), (1, 4)],
            theta: Ratio::new(1, 2),
            bottleneck: Some(4),
            stem: StemKind::ImageNet,
            init: 8,
            input: [3, 13, 13],
            classes: 6,
        },
        8,
    );
}

#[test]
fn the_imagenet_stem_on_a_wide_strip_of_four_channels() {
    check(
        Kind {
            blocks: &[(2, 3), (1, 7)],
            theta: Ratio::new(29, 100),
            bottleneck: None,
            stem: StemKind::ImageNet,
            init: 10,
            input: [4, 8, 70],
            classes: 5,
        },
        3,
    );
}

#[test]
fn maps_one_pixel_wide() {
    check(
        Kind {
            blocks: &[(2, 4), (2, 4)],
            theta: Ratio::ONE,
            bottleneck: Some(2),
            stem: StemKind::Cifar,
            init: 8,
            input: [1, 25, 3],
            classes: 2,
        },
        6,
    );
}

#[test]
fn a_batch_of_many_small_images() {
    check(
        Kind {
            blocks: &[(2, 5), (2, 4)],
            theta: Ratio::new(1, 2),
            bottleneck: Some(4),
            stem: StemKind::Cifar,
            init: 10,
            input: [3, 4, 4],
            classes: 10,
        },
        33,
    );
}

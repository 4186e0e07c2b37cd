//! Networks train towards classes, probabilities and independent targets with unknowns, with weights
//! of the loss, and the CUDA executor does the arithmetic of the CPU executor.

use densenet_runtime::plan::{Plan, Precision, Recompute};
use densenet_runtime::{
    Arena, Batch, Executor, ExecutorError, LossWeights, Network, Outcome, Pixels, Sgd, Step,
    Targets, cuda,
};
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::emulated::{alone, device, device_that_is_emulated, on_cuda, options};
use densenet_tests::executor::{load, logits, on_cpu, read, state};
use densenet_tests::networks::Bc;
use densenet_tests::random;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const PLAN: Plan = Bc::PLAN;
const BATCH: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Classes,
    Probabilities,
    Independent,
}

/// Targets of images, of each kind.
struct Drawn {
    labels: Vec<u32>,
    probabilities: Vec<f32>,
    independent: Vec<f32>,
}

impl Drawn {
    fn new(labels: Vec<u32>, seed: u64) -> Self {
        let classes = PLAN.classes();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut probabilities = Vec::new();
        for _ in &labels {
            let row: Vec<f32> = (0..classes).map(|_| rng.gen_range(0.0..1.0)).collect();
            let sum: f32 = row.iter().sum();
            probabilities.extend(row.iter().map(|value| value / sum));
        }
        let independent = (0..labels.len() * classes).map(|_| match rng.gen_range(0..4) {
            0 => f32::NAN,
            1 => rng.gen_range(0.0..1.0),
            2 => 1.0,
            _ => 0.0,
        });
        Self {
            independent: independent.collect(),
            probabilities,
            labels,
        }
    }

    fn of(&self, kind: Kind) -> Targets<'_> {
        match kind {
            Kind::Classes => Targets::Classes(&self.labels),
            Kind::Probabilities => Targets::Probabilities(&self.probabilities),
            Kind::Independent => Targets::Independent(&self.independent),
        }
    }
}

fn weights() -> LossWeights {
    let of = |first: usize| {
        (0..PLAN.classes()).map(move |class| ((class + first) % 4) as f32 / 2.0 + 0.25)
    };
    LossWeights {
        classes: of(0).collect(),
        positive: of(1).collect(),
    }
}

/// Everything that a step and an evaluation show, but the floats.
fn counts(outcome: &Outcome) -> [usize; 4] {
    [outcome.top1, outcome.top5, outcome.right, outcome.known]
}

#[test]
fn both_executors_train_alike_towards_each_kind() {
    let _alone = alone();
    let (_, device) = device();
    let mut cpu = on_cpu(&PLAN, BATCH, Recompute::Nothing, Precision::F32);
    let mut cuda = on_cuda(&device, &PLAN, options(BATCH));
    let start = random::state(&PLAN, 1);
    load(&mut cpu, &start);
    load(&mut cuda, &start);
    let mut compare = Comparison::within(TOLERANCE);
    // Kinds alternate, so that each finds the leftovers of the others; full batches are recorded,
    // and the second of a kind is replayed. The weights change in between.
    use Kind::{Classes, Independent, Probabilities};
    let kinds = [
        Classes,
        Probabilities,
        Independent,
        Independent,
        Probabilities,
        Classes,
    ];
    let batches = kinds.map(|kind| (kind, BATCH)).into_iter();
    let batches = batches.chain([(Independent, BATCH - 1), (Probabilities, BATCH - 2)]);
    for (number, (kind, images)) in batches.enumerate() {
        if number == 3 {
            cpu.set_loss_weights(&weights()).unwrap();
            cuda.set_loss_weights(&weights()).unwrap();
        }
        let seed = number as u64;
        let (pixels, labels) = random::batch(&PLAN, images, 20 + seed);
        let drawn = Drawn::new(labels, seed);
        let batch = Batch {
            pixels: Pixels::Nchw(&pixels),
            targets: drawn.of(kind),
        };
        let step = Step {
            label_smoothing: if kind == Independent { 0.0 } else { 0.1 },
            scale: 0.5,
            accumulate: number == 4,
            seed,
        };
        let sgd = Sgd {
            learning_rate: 0.02,
            ..Sgd::default()
        };
        let expected = cpu.differentiate(batch, step).unwrap();
        cpu.descend(sgd.into()).unwrap();
        let pending = cuda.step(batch, step, sgd.into()).unwrap();
        let found = cuda.finish(pending).unwrap();
        let what = format!("{number}, {kind:?}");
        assert_eq!(counts(&found), counts(&expected), "{what}");
        assert!((found.weight - expected.weight).abs() < 1e-6, "{what}");
        compare.add(
            format!("loss {what}"),
            &[found.loss as f32],
            &[expected.loss as f32],
        );
        compare.add_parameters(
            &format!("gradient {what} of"),
            &PLAN,
            &read(&cuda, Arena::Gradients),
            &read(&cpu, Arena::Gradients),
        );
        let expected = cpu.evaluate(batch).unwrap();
        let found = cuda.evaluate(batch).unwrap();
        assert_eq!(counts(&found), counts(&expected), "evaluation {what}");
        compare.add(
            format!("evaluation {what}"),
            &[found.loss as f32],
            &[expected.loss as f32],
        );
        compare.add(
            format!("logits {what}"),
            &logits(&cuda, images),
            &logits(&cpu, images),
        );
    }
    compare.add_state("after training", &PLAN, &state(&cuda), &state(&cpu));
    compare.assert("targets");
}

fn each_executor(test: impl Fn(&mut dyn Executor)) {
    let _alone = alone();
    let (_, device) = device();
    let mut executors: [Box<dyn Executor>; 2] = [
        Box::new(on_cpu(&PLAN, BATCH, Recompute::Nothing, Precision::F32)),
        Box::new(on_cuda(&device, &PLAN, options(BATCH))),
    ];
    for executor in &mut executors {
        load(&mut **executor, &random::state(&PLAN, 1));
        test(&mut **executor);
    }
}

#[test]
fn a_batch_of_unknown_targets_teaches_nothing() {
    each_executor(|executor| {
        let (pixels, _) = random::batch(&PLAN, BATCH, 1);
        let unknown = vec![f32::NAN; BATCH * PLAN.classes()];
        let batch = Batch {
            pixels: Pixels::Nchw(&pixels),
            targets: Targets::Independent(&unknown),
        };
        let outcome = executor.differentiate(batch, Step::default()).unwrap();
        assert_eq!(outcome, Outcome::default());
        let gradients = read(executor, Arena::Gradients);
        assert!(gradients.iter().all(|&slope| slope == 0.0));
        assert_eq!(executor.evaluate(batch).unwrap(), Outcome::default());
    });
}

#[test]
fn targets_that_do_not_fit_are_refused_and_nothing_changes() {
    each_executor(|executor| {
        let before = read(executor, Arena::Running);
        let classes = PLAN.classes();
        let (pixels, _) = random::batch(&PLAN, 2, 1);
        let mut half = vec![0.0; 2 * classes];
        half[0] = 1.0;
        let mut wide = half.clone();
        wide[classes + 2] = 1.5;
        let smoothed = Step {
            label_smoothing: 0.1,
            ..Step::default()
        };
        let cases = [
            (
                Targets::Probabilities(&half),
                Step::default(),
                "image 1 of the batch add up to 0",
            ),
            (
                Targets::Independent(&wide),
                Step::default(),
                "image 1 of the batch has target 1.5 for class 2",
            ),
            (
                Targets::Independent(&half[1..]),
                Step::default(),
                "not a whole number of rows",
            ),
            (
                Targets::Independent(&half),
                smoothed,
                "label smoothing is 0.1",
            ),
        ];
        for (targets, step, expected) in cases {
            let batch = Batch {
                pixels: Pixels::Nchw(&pixels),
                targets,
            };
            let error = executor.differentiate(batch, step).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            if step.label_smoothing == 0.0 {
                let error = executor.evaluate(batch).unwrap_err().to_string();
                assert!(error.contains(expected), "{error}");
            }
        }
        assert_eq!(read(executor, Arena::Running), before);
    });
}

#[test]
fn weights_that_do_not_fit_are_refused_and_the_old_ones_stay() {
    each_executor(|executor| {
        let (pixels, labels) = random::batch(&PLAN, BATCH, 1);
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
        executor.set_loss_weights(&weights()).unwrap();
        let before = executor.evaluate(batch).unwrap();
        let short = LossWeights {
            classes: vec![1.0; 2],
            ..LossWeights::default()
        };
        let error = executor.set_loss_weights(&short).unwrap_err();
        assert!(
            matches!(error, ExecutorError::LossWeightCount { found: 2, .. }),
            "{error}"
        );
        assert_eq!(executor.evaluate(batch).unwrap(), before);
        executor.set_loss_weights(&LossWeights::default()).unwrap();
        assert_ne!(executor.evaluate(batch).unwrap().loss, before.loss);
    });
}

#[test]
fn what_the_losses_move_is_what_is_counted() {
    let _alone = alone();
    let Some((emulator, device)) = device_that_is_emulated() else {
        return;
    };
    let (pixels, labels) = random::batch(&PLAN, BATCH, 1);
    let drawn = Drawn::new(labels, 1);
    for kind in [Kind::Classes, Kind::Probabilities, Kind::Independent] {
        let targets = drawn.of(kind);
        let precision = Precision::F32;
        let counted =
            cuda::launches_towards(targets, &PLAN, BATCH, precision, Recompute::Nothing).unwrap();
        let is_loss = |name: &str| name.ends_with("cross_entropy");
        let counted = counted
            .iter()
            .find(|launch| is_loss(launch.kernel))
            .unwrap();
        let mut executor = emulator.watched(|| on_cuda(&device, &PLAN, options(BATCH)));
        load(&mut executor, &random::state(&PLAN, 1));
        let batch = Batch {
            pixels: Pixels::Nchw(&pixels),
            targets,
        };
        let seen = emulator.touched(|| {
            executor.differentiate(batch, Step::default()).unwrap();
            logits(&executor, BATCH);
        });
        let seen = seen.iter().find(|launch| is_loss(&launch.kernel)).unwrap();
        assert_eq!(seen.kernel, counted.kernel);
        assert_eq!(
            (seen.read, seen.written),
            (counted.reads, counted.writes),
            "{kind:?}"
        );
    }
}

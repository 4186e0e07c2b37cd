//! Promises of a training step beyond PyTorch's golden files: dropout and label smoothing have
//! correct gradients, batches add up, and the same seed gives the same bits.

use densenet_runtime::plan::{Parameter, Plan};
use densenet_runtime::{Arena, Batch, Executor, Outcome, Pixels, Sgd, Step, cpu};
use densenet_tests::compare::difference;
use densenet_tests::each_network;
use densenet_tests::executor::{load, read, state};
use densenet_tests::golden::Golden;
use densenet_tests::networks::{Bc, Case};

/// A network of a golden file, with another dropout, on two threads.
struct Run {
    plan: Plan,
    images: Vec<f32>,
    labels: Vec<u32>,
    executor: cpu::CpuExecutor,
}

impl Run {
    fn new<N: Case>(dropout: f64) -> Self {
        let golden = Golden::open(N::GOLDEN, &N::PLAN);
        let plan = N::PLAN.with_dropout(dropout).unwrap();
        let labels = golden.labels();
        let options = cpu::CpuOptions {
            threads: 2,
            ..cpu::CpuOptions::for_batch(labels.len())
        };
        let mut executor = cpu::CpuExecutor::new(plan.clone(), options).unwrap();
        load(&mut executor, &golden.start());
        Self {
            plan,
            images: golden.images(),
            labels,
            executor,
        }
    }

    fn step(&mut self, step: Step) -> Outcome {
        let batch = Batch::of_classes(Pixels::Nchw(&self.images), &self.labels);
        self.executor.differentiate(batch, step).unwrap()
    }

    /// The loss with some parameters moved.
    fn loss_at(&mut self, parameters: &[f32], step: Step) -> f64 {
        self.executor.write(Arena::Parameters, parameters).unwrap();
        self.step(step).loss
    }

    /// Holds the gradient of each tensor against the slope of the loss along it.
    fn check_slopes(&mut self, step: Step) {
        self.step(step);
        let gradients = read(&self.executor, Arena::Gradients);
        let start = read(&self.executor, Arena::Parameters);
        let size = |parameter: &Parameter| -> f64 {
            let values = gradients[parameter.range()].iter();
            values
                .map(|&g| f64::from(g) * f64::from(g))
                .sum::<f64>()
                .sqrt()
        };
        let tensors: Vec<_> = self.plan.parameters();
        let trained = tensors.iter().filter(|tensor| tensor.role.is_trainable());
        let largest = trained.clone().map(size).fold(0.0, f64::max);
        let mut checked = 0;
        for tensor in trained {
            let slope = size(tensor);
            // The loss, of f32 logits, cannot tell smaller slopes from nothing.
            if slope < 0.02 * largest {
                continue;
            }
            let mut slope_within = |reach: f64| {
                let mut moved = |sign: f64| {
                    let mut parameters = start.clone();
                    for at in tensor.range() {
                        parameters[at] += (sign * reach * f64::from(gradients[at]) / slope) as f32;
                    }
                    self.loss_at(&parameters, step)
                };
                (moved(1.0) - moved(-1.0)) / (2.0 * reach)
            };
            // On a long way values cross the kink of a ReLU, on a short one the loss is rounded.
            let found = [5e-4, 2e-4].map(&mut slope_within);
            assert!(
                found.iter().any(|found| (found / slope - 1.0).abs() < 0.05),
                "{}: the gradient says {slope}, the loss {found:?}",
                tensor.field
            );
            checked += 1;
        }
        assert!(
            checked > 5,
            "only {checked} tensors have a gradient to speak of"
        );
    }
}

fn check_dropout<N: Case>() {
    let step = Step {
        seed: 3,
        ..Step::default()
    };
    Run::new::<N>(0.2).check_slopes(step);
}

each_network!(check_dropout);

#[test]
fn label_smoothing_has_true_gradients_and_the_loss_that_it_says() {
    let step = Step {
        label_smoothing: 0.1,
        ..Step::default()
    };
    let mut run = Run::new::<Bc>(0.0);
    let outcome = run.step(step);
    let classes = run.plan.classes();
    let mut logits = vec![0.0; run.labels.len() * classes];
    run.executor.logits(&mut logits).unwrap();
    let mut expected = 0.0;
    for (logits, &label) in logits.chunks(classes).zip(&run.labels) {
        let total: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
        for (class, &z) in logits.iter().enumerate() {
            let target = 0.1 / classes as f64 + if class == label as usize { 0.9 } else { 0.0 };
            expected -= target * (f64::from(z).exp() / total).ln() / run.labels.len() as f64;
        }
    }
    assert!(
        (outcome.loss - expected).abs() < 1e-5,
        "{outcome:?}, {expected}"
    );
    run.check_slopes(step);
}

#[test]
fn accumulated_batches_have_the_sum_of_their_scaled_gradients() {
    let gradients = |scale: f32, seed: u64| {
        let mut run = Run::new::<Bc>(0.2);
        run.step(Step {
            scale,
            seed,
            ..Step::default()
        });
        read(&run.executor, Arena::Gradients)
    };
    let (first, second) = (gradients(0.25, 1), gradients(0.75, 2));
    let expected: Vec<_> = first.iter().zip(&second).map(|(a, b)| a + b).collect();

    let mut run = Run::new::<Bc>(0.2);
    for (scale, seed, accumulate) in [(0.25, 1, false), (0.75, 2, true)] {
        run.step(Step {
            scale,
            seed,
            accumulate,
            ..Step::default()
        });
    }
    let found = read(&run.executor, Arena::Gradients);
    assert!(difference(&found, &expected) < 1e-6);
}

#[test]
fn the_same_seed_and_threads_give_the_same_bits_and_another_seed_others() {
    let trained = |seed: u64| {
        let mut run = Run::new::<Bc>(0.2);
        let losses: Vec<_> = (0..3)
            .map(|number| {
                let step = Step {
                    seed: seed + number,
                    ..Step::default()
                };
                let loss = run.step(step).loss.to_bits();
                run.executor.descend(Sgd::default().into()).unwrap();
                loss
            })
            .collect();
        let state = state(&run.executor);
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        (losses, bits(state.parameters), bits(state.running))
    };
    assert!(trained(1) == trained(1));
    assert!(trained(1) != trained(5));
}

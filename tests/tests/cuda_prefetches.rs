//! Batches come in, and outcomes go out, while the CUDA executor computes: its results are the same
//! as if the host waited for it at every step. The emulated device runs its streams late, in an
//! order drawn from a seed, so that work that misses a wait for an event goes wrong.

use std::path::Path;

use cuda_emulator::{Call, Kind};
use densenet_runtime::cuda;
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::plan::Plan;
use densenet_runtime::train::{
    Batches, Config, Fit, Observer, Schedule, StepReport, TrainError, Trainer,
};
use densenet_runtime::{
    Arena, Batch, Descent, Executor, ExecutorError, LossWeights, Network, Outcome, Pixels, Sgd,
    Step, densenet,
};
use densenet_tests::batches::{Made, Take};
use densenet_tests::emulated::{alone, device, on_cuda, options};
use densenet_tests::executor::{load, state};
use densenet_tests::networks::OneBlock;
use densenet_tests::random;
use safetensors::SafeTensors;

densenet! {
    /// The least that there is.
    Tiny { blocks: [1], k: 1, stem: cifar, init: 1, input: [1, 2, 2], classes: 2 }
}

const BATCH: usize = 3;
const PLAN: Plan = OneBlock::PLAN;

fn executor(seed: u64) -> cuda::CudaExecutor {
    let (emulator, device) = device();
    emulator.seed(seed);
    let mut executor = on_cuda(&device, &PLAN, options(BATCH));
    load(&mut executor, &random::state(&PLAN, 1));
    executor
}

/// Batches of floats and of bytes in turn, the third one not full.
fn with_batch<T>(number: usize, work: impl FnOnce(Batch<'_>) -> T) -> T {
    let images = if number == 2 { BATCH - 1 } else { BATCH };
    let (values, labels) = random::batch(&PLAN, images, number as u64);
    let bytes: Vec<u8> = values.iter().map(|value| value.to_bits() as u8).collect();
    let pixels = if number.is_multiple_of(2) {
        Pixels::Nchw(&values)
    } else {
        Pixels::Nhwc {
            bytes: &bytes,
            mean: &[0.1 * number as f32],
            std: &[0.5],
        }
    };
    // The batch is gone when this returns, as a loader's is.
    work(Batch::of_classes(pixels, &labels))
}

fn sgd(number: usize) -> Sgd {
    Sgd {
        learning_rate: 0.05 / (number + 1) as f32,
        ..Sgd::default()
    }
}

fn step(number: usize) -> Step {
    Step {
        seed: number as u64,
        scale: 1.0 / (number + 1) as f32,
        ..Step::default()
    }
}

/// Outcomes and the state after seven steps, with `pending` of them started when the first is
/// waited for.
fn train(seed: u64, pending: usize) -> (Vec<Outcome>, Vec<u32>) {
    let mut executor = executor(seed);
    let mut started = std::collections::VecDeque::new();
    let mut outcomes = Vec::new();
    for number in 0..7 {
        started.push_back(with_batch(number, |batch| executor.start(batch, step(number))).unwrap());
        executor.descend(sgd(number).into()).unwrap();
        if started.len() > pending {
            outcomes.push(executor.finish(started.pop_front().unwrap()).unwrap());
        }
    }
    for started in started {
        outcomes.push(executor.finish(started).unwrap());
    }
    let after = state(&executor);
    let values = after.parameters.into_iter().chain(after.running);
    (outcomes, values.map(f32::to_bits).collect())
}

#[test]
fn steps_that_nobody_waits_for_are_the_same_steps() {
    let _alone = alone();
    let expected = train(0, 0);
    assert_eq!(expected.0.len(), 7);
    for seed in 1..9 {
        for pending in [0, 1, 2, 6] {
            assert!(
                train(seed, pending) == expected,
                "seed {seed}, {pending} pending"
            );
        }
    }
}

#[test]
fn batches_come_in_beside_the_kernels_from_pinned_memory_and_start_waits_for_nothing() {
    let _alone = alone();
    let mut executor = executor(1);
    let (emulator, _) = device();
    if emulator.is_card() {
        return;
    }
    // Pinned memory has grown to the largest batch then, and graphs are recorded.
    for number in [0, 4] {
        let started = with_batch(number, |batch| executor.start(batch, step(number))).unwrap();
        executor.descend(sgd(number).into()).unwrap();
        executor.finish(started).unwrap();
    }
    state(&executor);
    let before = emulator.launches();
    let mut started = Vec::new();
    let calls = emulator.calls(|| {
        for number in [4, 5] {
            let begun = with_batch(number, |batch| executor.start(batch, step(number)));
            started.push(begun.unwrap());
            executor.descend(sgd(number).into()).unwrap();
        }
    });
    assert_eq!(
        emulator.launches(),
        before,
        "a kernel has run: `start` waits"
    );
    let of = |kinds: &[Kind]| -> Vec<&Call> {
        let all = calls.iter();
        all.filter(|call| kinds.contains(&call.kind)).collect()
    };
    let computed = of(&[Kind::Launch, Kind::Replay]);
    let copied = of(&[Kind::CopyIn, Kind::CopyOut]);
    let main = computed[0].stream;
    assert!(computed.iter().all(|call| call.stream == main));
    assert!(copied.iter().all(|call| call.pinned), "{copied:?}");
    // One of floats, one of bytes.
    let plan = PLAN;
    let stem = plan.stem();
    let values = (BATCH * stem.channels * stem.height * stem.width) as u64;
    let pixels: Vec<_> = copied
        .iter()
        .filter(|call| call.kind == Kind::CopyIn && call.bytes >= values)
        .collect();
    let bytes: Vec<_> = pixels.iter().map(|call| call.bytes).collect();
    assert_eq!(bytes, [4 * values, values]);
    assert!(pixels.iter().all(|call| call.stream != main));
    for started in started {
        assert!(executor.finish(started).unwrap().loss.is_finite());
    }
    assert!(emulator.launches() > before);
}

#[test]
fn a_batch_is_no_other_executors() {
    let _alone = alone();
    let (mut one, mut other) = (executor(1), executor(1));
    let [own, others] = [&mut one, &mut other]
        .map(|executor| with_batch(0, |batch| executor.start(batch, step(0))).unwrap());
    let error = one.finish(others).unwrap_err().to_string();
    assert!(error.contains("another one started it"), "{error}");
    assert!(one.finish(own).unwrap().loss.is_finite());
}

#[test]
fn a_loss_that_is_not_finite_stops_descent_until_it_is_said() {
    let _alone = alone();
    let mut executor = executor(1);
    let before = state(&executor);
    let (mut values, labels) = random::batch(&PLAN, BATCH, 0);
    values[0] = f32::NAN;
    let broken = Batch::of_classes(Pixels::Nchw(&values), &labels);
    let first = executor.start(broken, step(0)).unwrap();
    executor.descend(sgd(0).into()).unwrap();
    // Begun before anybody knows.
    let second = with_batch(1, |batch| executor.start(batch, step(1))).unwrap();
    executor.descend(sgd(1).into()).unwrap();
    assert!(executor.finish(first).unwrap().loss.is_nan());
    let _ = executor.finish(second).unwrap();
    // Weights and statistics.
    assert_eq!(state(&executor), before);
    let third = with_batch(1, |batch| executor.start(batch, step(1))).unwrap();
    executor.descend(sgd(1).into()).unwrap();
    assert!(executor.finish(third).unwrap().loss.is_finite());
    assert_ne!(state(&executor).parameters, before.parameters);
}

/// The same executor, waited for at every step.
struct Waiting(cuda::CudaExecutor);

impl Executor for Waiting {
    fn plan(&self) -> &Plan {
        self.0.plan()
    }
    fn capacity(&self) -> usize {
        self.0.capacity()
    }
    fn read(&self, arena: Arena, into: &mut [f32]) -> Result<(), ExecutorError> {
        self.0.read(arena, into)
    }
    fn write(&mut self, arena: Arena, from: &[f32]) -> Result<(), ExecutorError> {
        self.0.write(arena, from)
    }
    fn set_loss_weights(&mut self, weights: &LossWeights) -> Result<(), ExecutorError> {
        self.0.set_loss_weights(weights)
    }
    fn differentiate(&mut self, batch: Batch<'_>, step: Step) -> Result<Outcome, ExecutorError> {
        self.0.differentiate(batch, step)
    }
    fn descend(&mut self, descent: Descent) -> Result<(), ExecutorError> {
        self.0.descend(descent)
    }
    fn update_statistics(&mut self, batch: Batch<'_>) -> Result<(), ExecutorError> {
        self.0.update_statistics(batch)
    }
    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Outcome, ExecutorError> {
        self.0.evaluate(batch)
    }
    fn logits(&self, into: &mut [f32]) -> Result<(), ExecutorError> {
        self.0.logits(into)
    }
}

fn four_batches() -> impl Batches {
    let make = |epoch, number, take: &mut Take<'_>| {
        with_batch(number as usize + 4 * epoch as usize, &mut *take)
    };
    Made { count: 4, make }
}

/// What an observer hears.
#[derive(Default)]
struct Heard(Vec<String>);

impl Observer for Heard {
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        let numbers = (report.step, report.epoch, report.loss, report.top1);
        self.0.push(format!("step {numbers:?}"));
        Ok(())
    }
    fn checkpoint(&mut self, _: &Path, step: u64) -> Result<(), TrainError> {
        self.0.push(format!("checkpoint {step}"));
        Ok(())
    }
}

/// A file's tensors and metadata, whatever their order.
fn contents(file: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(file).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let said = header.metadata().clone().unwrap_or_default();
    let said = said.into_iter().map(|(key, text)| (key, text.into_bytes()));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = tensors
        .iter()
        .map(|(name, one)| (name.to_owned(), one.data().to_vec()));
    let mut all: Vec<_> = tensors.chain(said).collect();
    all.sort();
    all
}

/// The reports, the weights, and the checkpoint.
type Run = (Vec<String>, Vec<f32>, Vec<(String, Vec<u8>)>);

fn fit(executor: Box<dyn Executor>) -> Run {
    let config = Config {
        epochs: 2,
        batch: BATCH,
        schedule: Schedule::halves(0.05),
        ..Config::cifar()
    };
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    let model = Cpu::seed_from_u64(5).build_module::<OneBlock, f32>();
    let mut trainer = Trainer::with_executor(model, config, executor).unwrap();
    let mut heard = Heard::default();
    let fit = Fit {
        checkpoint: Some(checkpoint.clone()),
        checkpoint_every: Some(3),
        ..Fit::default()
    };
    let batches = four_batches();
    trainer.fit(&batches, &batches, &fit, &mut heard).unwrap();
    let mut parameters = vec![0.0; PLAN.parameter_count()];
    let numbers = trainer.executor();
    numbers.read(Arena::Parameters, &mut parameters).unwrap();
    (heard.0, parameters, contents(&checkpoint))
}

#[test]
fn a_trainer_that_prefetches_reports_and_keeps_the_same() {
    let _alone = alone();
    let waited_for = fit(Box::new(Waiting(executor(3))));
    let prefetched = fit(Box::new(executor(4)));
    assert_eq!(prefetched.0, waited_for.0);
    assert_eq!(
        prefetched
            .0
            .iter()
            .filter(|line| line.starts_with("step"))
            .count(),
        8
    );
    assert!(prefetched.1 == waited_for.1, "the weights");
    assert!(prefetched.2 == waited_for.2, "the checkpoint");
}

/// Two steps of as many wait at once.
#[test]
fn a_step_may_have_more_than_a_thousand_pieces() {
    let _alone = alone();
    let (_, device) = device();
    let mut executor = on_cuda(&device, &Tiny::PLAN, options(1));
    load(&mut executor, &random::state(&Tiny::PLAN, 1));
    let (pixels, labels) = random::batch(&Tiny::PLAN, 1, 1);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    let start = |piece: usize| {
        let step = Step {
            accumulate: piece > 0,
            ..Step::default()
        };
        executor.start(batch, step).unwrap()
    };
    let all: Vec<_> = (0..1030).map(start).collect();
    for piece in all {
        assert!(executor.finish(piece).unwrap().loss.is_finite());
    }
}

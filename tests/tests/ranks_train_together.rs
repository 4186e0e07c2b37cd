//! Data-parallel training: ranks with equal parts of each batch follow the arithmetic of one that
//! has it all, and stay equal to each other bit for bit. In threads, and in processes that meet
//! over TCP as torchrun would start them.

use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use densenet_runtime::dfdx::prelude::{BuildModule, Cpu, DeviceBuildExt};
use densenet_runtime::parallel::{
    Collective, Parallel, ParallelError, ProcessGroup, Ranks, Threads,
};
use densenet_runtime::plan::{Plan, Recompute};
use densenet_runtime::train::{
    Batches, Config, Ending, Fit, Interrupt, Observer, Schedule, StepReport, Summary, TrainError,
    Trainer,
};
use densenet_runtime::weights::State;
use densenet_runtime::{
    Arena, Batch, Descent, Device, Executor, ExecutorError, Network, Pixels, Sgd, Step, cpu,
    densenet,
};
use densenet_tests::batches::{Made, Take};
use densenet_tests::cause;
use densenet_tests::compare::difference;
use densenet_tests::executor::{load, on_cpu, read, state};
use densenet_tests::networks::OneBlock;
use densenet_tests::random;
use densenet_tests::ranks::{free_port, local_ranks, together};

densenet! {
    /// A million feature maps.
    Huge { blocks: [1], k: 1, init: 1048576, input: [1, 2, 2], classes: 2 }
}

const PLAN: Plan = OneBlock::PLAN;
/// Images of a rank.
const PART: usize = 4;

fn started() -> cpu::CpuExecutor {
    let mut executor = on_cpu(&PLAN, PART, Recompute::Nothing, cpu::Precision::F32);
    load(&mut executor, &random::state(&PLAN, 3));
    executor
}

/// The images of a rank in a step.
fn part(step: u64, rank: usize) -> (Vec<f32>, Vec<u32>) {
    random::batch(&PLAN, PART, 10 * step + rank as u64)
}

fn differentiate(executor: &mut dyn Executor, step: u64, rank: usize, accumulate: bool) -> f64 {
    let (pixels, labels) = part(step, rank);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    let how = Step {
        accumulate,
        scale: 0.5,
        ..Step::default()
    };
    executor.differentiate(batch, how).unwrap().loss
}

/// Gradients, then parameters and running statistics.
type Numbers = (Vec<f32>, Vec<f32>, Vec<f32>);

/// Two steps, each of two batches whose gradients are added up; the losses of all four.
fn two_steps(executor: &mut dyn Executor, rank: usize) -> (Vec<f64>, Numbers) {
    let mut losses = Vec::new();
    for step in 0..4 {
        losses.push(differentiate(executor, step, rank, step % 2 == 1));
        if step % 2 == 1 {
            executor.descend(Sgd::default().into()).unwrap();
        }
    }
    let after = state(executor);
    let gradients = read(executor, Arena::Gradients);
    (losses, (gradients, after.parameters, after.running))
}

fn close(found: &[f32], expected: &[f32], what: &str) {
    let off = difference(found, expected);
    assert!(off <= 1e-5, "{what}: {off} of the largest");
}

#[test]
fn gradients_are_clipped_by_the_norm_of_their_average() {
    const MOST: f32 = 0.01;
    let moved = together(Threads::group(2), |collective, rank| {
        let mut ranks = Parallel::new(Box::new(started()), Box::new(collective));
        differentiate(&mut ranks, 0, rank, false);
        let before = read(&ranks, Arena::Parameters);
        let sgd = Sgd {
            learning_rate: 1.0,
            momentum: 0.0,
            weight_decay: 0.0,
            nesterov: false,
        };
        let descent = Descent {
            clip: Some(MOST),
            ..sgd.into()
        };
        ranks.descend(descent).unwrap();
        let after = read(&ranks, Arena::Parameters);
        let moved = before
            .iter()
            .zip(&after)
            .map(|(before, after)| before - after);
        (moved.collect::<Vec<f32>>(), read(&ranks, Arena::Gradients))
    });
    let norm = |values: &[f32]| values.iter().map(|v| v * v).sum::<f32>().sqrt();
    let (own, average) = &moved[0];
    assert!(norm(average) > 2.0 * MOST, "there is nothing to clip");
    let clipped: Vec<f32> = average.iter().map(|g| g * MOST / norm(average)).collect();
    // Parameters are of size 1, and the differences are rounded as they are.
    let off = own
        .iter()
        .zip(&clipped)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(off < 1e-6, "{off}");
    assert_eq!(moved[0], moved[1]);
}

#[test]
fn gradients_and_statistics_are_the_averages_of_the_ranks_own() {
    // By hand: each rank's own, from the same start, averaged.
    let alone: Vec<_> = (0..2)
        .map(|rank| {
            let mut executor = started();
            let loss = differentiate(&mut executor, 0, rank, false);
            let running = state(&executor).running;
            (loss, read(&executor, Arena::Gradients), running)
        })
        .collect();
    type Own = (f64, Vec<f32>, Vec<f32>);
    let average = |of: fn(&Own) -> &Vec<f32>| -> Vec<f32> {
        let pairs = of(&alone[0]).iter().zip(of(&alone[1]));
        pairs.map(|(a, b)| (a + b) / 2.0).collect()
    };
    let (gradients, running) = (average(|own| &own.1), average(|own| &own.2));
    assert_ne!(alone[0].1, alone[1].1, "the parts differ");
    let ranks = together(Threads::group(2), |collective, rank| {
        let mut executor = Parallel::new(Box::new(started()), Box::new(collective));
        let loss = differentiate(&mut executor, 0, rank, false);
        let after = state(&executor).running;
        (loss, read(&executor, Arena::Gradients), after)
    });
    for found in &ranks {
        assert_eq!(found.0, (alone[0].0 + alone[1].0) / 2.0);
        close(&found.1, &gradients, "gradient");
        close(&found.2, &running, "statistic");
    }
    assert!(ranks[0] == ranks[1]);
}

#[test]
fn ranks_follow_the_arithmetic_of_one_that_adds_up_their_parts() {
    let ranks = together(Threads::group(2), |collective, rank| {
        let mut executor = Parallel::new(Box::new(started()), Box::new(collective));
        two_steps(&mut executor, rank)
    });
    assert!(ranks[0] == ranks[1], "ranks are equal bit for bit");
    // One executor, which takes each part of each batch in turn, normalised on its own, and adds
    // the gradients up.
    let mut one = started();
    for step in 0..4u64 {
        for rank in 0..2 {
            let (pixels, labels) = part(step, rank);
            let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
            let how = Step {
                accumulate: step % 2 == 1 || rank == 1,
                scale: 0.25,
                ..Step::default()
            };
            one.differentiate(batch, how).unwrap();
        }
        if step % 2 == 1 {
            one.descend(Sgd::default().into()).unwrap();
        }
    }
    close(&ranks[0].1.0, &read(&one, Arena::Gradients), "gradient");
    close(&ranks[0].1.1, &state(&one).parameters, "parameter");
}

/// A rank's part of eight images; in evaluation, of five.
fn images(rank: usize) -> impl Batches {
    let make = move |epoch, number, take: &mut Take<'_>| pass_part(epoch, number, rank, take);
    Made { count: 2, make }
}

/// Passes on a rank's part of a step.
fn pass_part(epoch: u32, step: u64, rank: usize, take: &mut Take<'_>) -> ControlFlow<()> {
    let (pixels, labels) = part(100 * u64::from(epoch) + step, rank);
    take(Batch::of_classes(Pixels::Nchw(&pixels), &labels))
}

#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        self.0.push(report.loss);
        Ok(())
    }
}

fn trainer(collective: Box<dyn Collective>) -> Trainer<OneBlock> {
    let config = Config {
        epochs: 2,
        batch: PART,
        threads: 1,
        ..Config::cifar()
    };
    let executor = Parallel::new(Box::new(started()), collective);
    let model = Cpu::seed_from_u64(1).build_module::<OneBlock, f32>();
    Trainer::with_executor(model, config, Box::new(executor)).unwrap()
}

/// A run of the trainer on a rank: what must be equal on all.
fn run(collective: Box<dyn Collective>, rank: usize) -> (Vec<f64>, f64, usize, Vec<f32>) {
    let mut trainer = trainer(collective);
    let mut losses = Losses::default();
    let images = images(rank);
    let summary = trainer
        .fit(&images, &images, &Fit::default(), &mut losses)
        .unwrap();
    let evaluation = summary.evaluation.unwrap();
    let parameters = read(trainer.executor(), Arena::Parameters);
    (losses.0, evaluation.loss, evaluation.images, parameters)
}

#[test]
fn a_trainer_on_each_rank_reports_and_evaluates_the_same() {
    let ranks = together(Threads::group(3), |collective, rank| {
        run(Box::new(collective), rank)
    });
    assert!(ranks[0] == ranks[1] && ranks[1] == ranks[2]);
    assert_eq!(ranks[0].2, 3 * 2 * PART, "all ranks' images are evaluated");
    assert_eq!(ranks[0].0.len(), 4);
}

#[test]
fn a_rank_that_is_lost_and_a_lack_of_memory_are_found_behind_a_trainers_error() {
    let ranks = together(Threads::group(2), |collective, rank| {
        // The second leaves before it has trained.
        (rank == 0).then(|| {
            let images = images(rank);
            let mut trainer = trainer(Box::new(collective));
            trainer.fit(&images, &images, &Fit::default(), &mut ())
        })
    });
    let error = ranks.into_iter().flatten().next().unwrap().unwrap_err();
    assert!(
        matches!(cause(&error), Some(ParallelError::Lost { other: 1, .. })),
        "{error}"
    );
    let config = Config {
        batch: Huge::PLAN.countable_batch(),
        ..Config::cifar()
    };
    let error = Trainer::new(Huge::build(&Cpu::default()), config).err();
    let error = error.unwrap();
    assert!(
        matches!(cause(&error), Some(ExecutorError::OutOfMemory { .. })),
        "{error}"
    );
}

/// The parts of two ranks, one after another.
fn both_parts() -> impl Batches {
    let make = |epoch, number, take: &mut Take<'_>| {
        pass_part(epoch, number / 2, number as usize % 2, take)
    };
    Made { count: 4, make }
}

#[test]
fn recomputed_statistics_are_those_of_all_ranks_images() {
    let recomputed = |executor: Box<dyn Executor>, images: &dyn Batches| {
        let config = Config {
            epochs: 2,
            batch: PART,
            // The weights stay as they are.
            schedule: Schedule::constant(0.0),
            precise_bn: images.batches() as u32,
            threads: 1,
            ..Config::cifar()
        };
        let model = Cpu::seed_from_u64(1).build_module::<OneBlock, f32>();
        let mut trainer = Trainer::with_executor(model, config, executor).unwrap();
        let fitted = trainer.fit(images, images, &Fit::default(), &mut Losses::default());
        let loss = fitted.unwrap().evaluation.unwrap().loss;
        (State::of(trainer.model().unwrap()).running, loss)
    };
    let ranks = together(Threads::group(2), |collective, rank| {
        let executor = Parallel::new(Box::new(started()), Box::new(collective));
        recomputed(Box::new(executor), &images(rank))
    });
    assert!(ranks[0] == ranks[1]);
    let alone = recomputed(Box::new(started()), &both_parts());
    close(&ranks[0].0, &alone.0, "statistic");
    assert!(
        (ranks[0].1 - alone.1).abs() < 1e-5,
        "{} {}",
        ranks[0].1,
        alone.1
    );
}

/// Asks for an end only on the second of two ranks: after a step, or in an evaluation.
struct Ends {
    rank: usize,
    after: Option<u64>,
    interrupt: Interrupt,
}

impl Observer for Ends {
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        if self.rank == 1 && self.after == Some(report.step) {
            self.interrupt.request();
        }
        Ok(())
    }
}

/// A rank's part of five images; the run is asked to end in the middle.
fn ends_in(ends: &Ends) -> impl Batches {
    let make = move |epoch, number, take: &mut Take<'_>| {
        if ends.rank == 1 && ends.after.is_none() {
            ends.interrupt.request();
        }
        pass_part(epoch, number, ends.rank, take)
    };
    Made { count: 2, make }
}

#[test]
fn if_one_rank_is_asked_to_end_all_end_after_the_same_step() {
    for (after, expected) in [(Some(1), 1), (Some(3), 3), (None, 2)] {
        let ended = together(Threads::group(2), |collective, rank| {
            let interrupt = Interrupt::new();
            let fit = Fit {
                interrupt: interrupt.clone(),
                ..Fit::default()
            };
            let mut ends = Ends {
                rank,
                after,
                interrupt: interrupt.clone(),
            };
            let validation = Ends { interrupt, ..ends };
            let mut trainer = trainer(Box::new(collective));
            let summary = trainer.fit(&images(rank), &ends_in(&validation), &fit, &mut ends);
            let summary = summary.unwrap();
            (summary.ending, summary.step)
        });
        assert_eq!(ended, [(Ending::Interrupted, expected); 2], "{after:?}");
    }
}

const LONG: Duration = Duration::from_secs(60);

/// The process of the next test: its variables say which rank it is.
#[test]
fn a_rank() {
    // Started only by the next test; otherwise there is nothing to do.
    if std::env::var("RANKS_TEST").is_err() {
        return;
    }
    let ranks = Ranks::from_env().unwrap();
    assert!(!ranks.is_alone());
    let rank = ranks.rank;
    let group = ProcessGroup::join(ranks, LONG).unwrap();
    let (losses, loss, images, parameters) = run(Box::new(group), rank);
    let bits: Vec<_> = parameters.iter().map(|value| value.to_bits()).collect();
    println!("CAME {losses:?} {loss} {images} {bits:?}");
}

#[test]
fn processes_meet_and_compute_what_threads_do() {
    let port = free_port().to_string();
    let children: Vec<_> = (0..2)
        .map(|rank: usize| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "a_rank", "--nocapture"])
                .env("RANKS_TEST", "1")
                .env("RANK", rank.to_string())
                .env("LOCAL_RANK", rank.to_string())
                .env("WORLD_SIZE", "2")
                .env("MASTER_ADDR", "localhost")
                .env("MASTER_PORT", &port)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let came: Vec<_> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let start = text.find("CAME").expect("a result");
            text[start..].lines().next().unwrap().to_owned()
        })
        .collect();
    assert_eq!(came[0], came[1]);
    let threads = together(Threads::group(2), |collective, rank| {
        run(Box::new(collective), rank)
    });
    let (losses, loss, images, parameters) = &threads[0];
    let bits: Vec<_> = parameters.iter().map(|value| value.to_bits()).collect();
    assert_eq!(came[0], format!("CAME {losses:?} {loss} {images} {bits:?}"));
}

#[test]
fn a_rank_that_nobody_joins_says_who_is_missing_and_where_it_waited() {
    let port = free_port();
    let start = Instant::now();
    let patience = Duration::from_millis(300);
    let error = ProcessGroup::join(local_ranks(0, 3, port), patience)
        .err()
        .unwrap();
    let error = error.to_string();
    assert!(error.contains("rank 0 of 3"), "{error}");
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
    assert!(error.contains("not here in time: 1, 2"), "{error}");
    let error = ProcessGroup::join(local_ranks(1, 3, port), patience)
        .err()
        .unwrap();
    let error = error.to_string();
    assert!(error.contains("rank 1 of 3 cannot reach rank 0"), "{error}");
    assert!(start.elapsed() < LONG / 2);
}

#[test]
fn worlds_of_other_sizes_do_not_meet() {
    let port = free_port();
    let error = thread::scope(|scope| {
        let zero = scope.spawn(move || ProcessGroup::join(local_ranks(0, 2, port), LONG));
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            thread::sleep(Duration::from_millis(5));
        }
        scope
            .spawn(move || ProcessGroup::join(local_ranks(1, 3, port), Duration::from_millis(500)));
        zero.join().unwrap().err().unwrap().to_string()
    });
    assert!(error.contains("rank 1 of 3"), "{error}");
}

#[test]
fn a_rank_that_has_gone_is_named() {
    let port = free_port();
    thread::scope(|scope| {
        let zero = scope.spawn(move || {
            let mut group = ProcessGroup::join(local_ranks(0, 2, port), LONG).unwrap();
            group.sum(&mut [1.0]).map_err(|error| error.to_string())
        });
        // Comes and goes.
        drop(ProcessGroup::join(local_ranks(1, 2, port), LONG).unwrap());
        let error = zero.join().unwrap().unwrap_err();
        assert!(error.contains("rank 0 lost rank 1"), "{error}");
    });
}

#[test]
fn a_thread_that_has_gone_is_named() {
    let ranks = together(Threads::group(3), |mut collective, rank| {
        collective.sum(&mut [1.0]).unwrap();
        // The second leaves; the others would wait for it.
        (rank != 1).then(|| collective.sum(&mut [1.0]).unwrap_err().to_string())
    });
    let left = |rank| Some(format!("rank {rank} lost rank 1: its thread has left"));
    assert_eq!(ranks, [left(0), None, left(2)]);
}

#[test]
fn ranks_with_other_networks_are_told_apart() {
    let came = together(Threads::group(2), |mut collective, rank| {
        collective.average(&mut vec![1.0; 3 + rank])
    });
    for came in came {
        let error = came.unwrap_err().to_string();
        assert!(error.contains("rank 1 brought 4 values"), "{error}");
    }
}

#[test]
fn bytes_of_rank_0_reach_all() {
    let port = free_port();
    thread::scope(|scope| {
        for rank in 0..3usize {
            scope.spawn(move || {
                let mut group = ProcessGroup::join(local_ranks(rank, 3, port), LONG).unwrap();
                let mut bytes = [rank as u8 + 7; 128];
                group.broadcast(&mut bytes).unwrap();
                assert_eq!(bytes, [7; 128]);
                let mut sum = [rank as f64, 1.0];
                group.sum(&mut sum).unwrap();
                assert_eq!(sum, [3.0, 3.0]);
            });
        }
    });
}

/// The first rank takes its time over its last file.
struct Slow<'a>(usize, &'a AtomicBool);

impl Observer for Slow<'_> {
    fn end(&mut self, _: &Summary) -> Result<(), TrainError> {
        if self.0 == 0 {
            thread::sleep(Duration::from_millis(300));
            self.1.store(true, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[test]
fn a_run_ends_on_all_ranks_when_the_files_of_the_first_are_written() {
    let written = AtomicBool::new(false);
    let seen = together(Threads::group(2), |collective, rank| {
        let mut trainer = trainer(Box::new(collective));
        let images = images(rank);
        let mut slow = Slow(rank, &written);
        let fit = Fit::default();
        trainer.fit(&images, &images, &fit, &mut slow).unwrap();
        written.load(Ordering::SeqCst)
    });
    assert_eq!(seen, [true, true]);
}

/// The first rank alone sees that the best checkpoint is missing.
#[test]
fn ranks_that_are_resumed_agree_on_the_best_evaluation() {
    let folder = tempfile::tempdir().unwrap();
    let [checkpoint, best] = ["checkpoint", "best"].map(|name| folder.path().join(name));
    let go = |is_resumed: bool, steps, patience| {
        let port = free_port();
        let ranks = [0, 1].map(|rank| local_ranks(rank, 2, port));
        together(ranks.into(), |ranks: Ranks, rank| {
            let config = Config {
                epochs: 6,
                batch: PART,
                threads: 1,
                // Every evaluation is the same.
                schedule: Schedule::constant(0.0),
                precise_bn: 2,
                ..Config::cifar()
            };
            let model = Cpu::seed_from_u64(1).build_module::<OneBlock, f32>();
            let mut trainer = Trainer::among(model, config, &Device::Cpu, &ranks).unwrap();
            if is_resumed {
                trainer.resume(&checkpoint).unwrap();
            }
            let make = move |_, number, take: &mut Take<'_>| pass_part(0, number, rank, take);
            let images = Made { count: 2, make };
            let fit = Fit {
                steps,
                patience,
                checkpoint: Some(checkpoint.clone()),
                best: Some(best.clone()),
                ..Fit::default()
            };
            let summary = trainer.fit(&images, &images, &fit, &mut ()).unwrap();
            (summary.ending, summary.step)
        })
    };
    go(false, Some(4), None);
    std::fs::remove_file(&best).unwrap();
    let ended = go(true, None, Some(2));
    assert_eq!(ended, [(Ending::Stalled, 10); 2]);
}

#[test]
fn ranks_on_executors_of_their_own_leave_the_files_to_the_first() {
    let folder = tempfile::tempdir().unwrap();
    // A path for each, so that the test does not depend on which is first.
    let path = |rank: usize| folder.path().join(format!("checkpoint-{rank}"));
    let writes = together(Threads::group(2), |collective, rank| {
        let mut trainer = trainer(Box::new(collective));
        let fit = Fit {
            checkpoint: Some(path(rank)),
            ..Fit::default()
        };
        let images = images(rank);
        trainer.fit(&images, &images, &fit, &mut ()).unwrap();
        trainer.writes()
    });
    assert_eq!(writes, [true, false]);
    assert!(path(0).exists() && !path(1).exists());
}

//! Two ranks that train together, each a thread of this process.

use std::thread;
use std::time::Duration;

use densenet_runtime::cuda::{self, CudaDevice};
use densenet_runtime::parallel::{Parallel, ProcessGroup, Ranks, Secret, Threads};
use densenet_runtime::plan::{Plan, Precision, Recompute};
use densenet_runtime::{Arena, Batch, Descent, Executor, Group, Network, Pixels, Sgd, Step};

use crate::compare::{Comparison, TOLERANCE};
use crate::emulated;
use crate::executor::{load, on_cpu, read, state};
use crate::networks::Bc;
use crate::random;

const PLAN: Plan = Bc::PLAN;
/// Images of a rank's part of a batch.
pub const PART: usize = 3;

/// A CUDA executor for a rank's part of a batch.
///
/// # Panics
/// If it cannot be made.
pub fn on_cuda() -> cuda::CudaExecutor {
    let device = CudaDevice::open(0).unwrap();
    emulated::on_cuda(&device, &PLAN, emulated::options(PART))
}

/// The results of some steps: losses, gradients, parameters and running statistics.
#[derive(PartialEq)]
pub struct Seen {
    losses: Vec<f32>,
    gradients: Vec<f32>,
    parameters: Vec<f32>,
    running: Vec<f32>,
}

fn seen(executor: &dyn Executor, losses: Vec<f32>) -> Seen {
    let after = state(executor);
    Seen {
        losses,
        gradients: read(executor, Arena::Gradients),
        parameters: after.parameters,
        running: after.running,
    }
}

/// The loss of a whole step.
fn whole_step(executor: &mut dyn Executor, pixels: &[f32], labels: &[u32]) -> f32 {
    let batch = Batch::of_classes(Pixels::Nchw(pixels), labels);
    // Less than the norm of the averaged gradient, which each rank finds by itself.
    let descent = Descent {
        clip: Some(0.1),
        ..Sgd::default().into()
    };
    let started = executor.step(batch, Step::default(), descent);
    executor.finish(started.unwrap()).unwrap().loss as f32
}

/// Three steps of a rank; the last is of fewer images, as an epoch's last may be.
pub fn steps(executor: &mut dyn Executor, rank: usize) -> Seen {
    steps_in(&[Group::all(PLAN.parameter_count())], executor, rank)
}

/// The same with groups of parameters.
///
/// # Panics
/// If a step fails.
pub fn steps_in(groups: &[Group], executor: &mut dyn Executor, rank: usize) -> Seen {
    load(executor, &random::state(&PLAN, 1));
    executor.set_groups(groups).unwrap();
    let mut losses = Vec::new();
    for (step, images) in [PART, PART, PART - 1].into_iter().enumerate() {
        let seed = 10 * step as u64 + rank as u64;
        let (pixels, labels) = random::batch(&PLAN, images, seed);
        losses.push(whole_step(executor, &pixels, &labels));
    }
    let mut sums = [1.0, rank as f64];
    executor.total(&mut sums).unwrap();
    assert_eq!(sums, [2.0, 1.0]);
    seen(executor, losses)
}

/// A step in which the second rank's loss is not a number, and a good one: nothing of the first is
/// kept, on either rank.
pub fn steps_of_which_one_is_broken(executor: &mut dyn Executor, rank: usize) -> Seen {
    const KEPT: [Arena; 3] = [Arena::Parameters, Arena::Momentum, Arena::Running];
    load(executor, &random::state(&PLAN, 1));
    let mut losses = Vec::new();
    for step in 0..2 {
        let before = KEPT.map(|arena| read(executor, arena));
        let (mut pixels, labels) = random::batch(&PLAN, PART, 10 * step + rank as u64);
        if step == 0 && rank == 1 {
            pixels.fill(f32::NAN);
        }
        let loss = whole_step(executor, &pixels, &labels);
        let after = KEPT.map(|arena| read(executor, arena));
        assert_eq!(
            loss.is_finite(),
            step == 1,
            "the loss of step {step}: {loss}"
        );
        for ((before, after), arena) in before.iter().zip(&after).zip(KEPT) {
            assert_eq!(before == after, step == 0, "{arena:?} of step {step}");
        }
        losses.push(loss);
    }
    losses.retain(|loss| loss.is_finite());
    seen(executor, losses)
}

/// The work of each rank, each in a thread of its own.
pub fn together<T: Send, R: Send>(ranks: Vec<T>, work: impl Fn(T, usize) -> R + Sync) -> Vec<R> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = ranks
            .into_iter()
            .enumerate()
            .map(|(rank, own)| scope.spawn(move || work(own, rank)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.collect()
    })
}

/// Ranks are equal bit for bit.
pub fn are_equal(found: &[Seen]) {
    assert!(found[0] == found[1], "ranks are equal bit for bit");
}

/// Ranks are equal bit for bit, and follow ranks on the CPU.
pub fn follow_the_cpu(found: &[Seen]) {
    follow_the_cpu_in(&[Group::all(PLAN.parameter_count())], found);
}

/// The same with groups of parameters.
///
/// # Panics
/// If they do not.
pub fn follow_the_cpu_in(groups: &[Group], found: &[Seen]) {
    let expected = together(Threads::group(2), |collective, rank| {
        let mut executor = Parallel::new(
            Box::new(on_cpu(&PLAN, PART, Recompute::Nothing, Precision::F32)),
            Box::new(collective),
        );
        steps_in(groups, &mut executor, rank)
    });
    are_equal(found);
    let (found, expected) = (&found[0], &expected[0]);
    let mut compare = Comparison::within(TOLERANCE);
    compare.add("losses", &found.losses, &expected.losses);
    compare.add_parameters("gradient of", &PLAN, &found.gradients, &expected.gradients);
    compare.add_parameters("parameter", &PLAN, &found.parameters, &expected.parameters);
    compare.add("statistics", &found.running, &expected.running);
    compare.assert("ranks");
}

/// A port of this machine that is free now.
///
/// # Panics
/// If no port is free.
pub fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

/// A rank among others on this machine, without a secret.
pub fn local_ranks(rank: usize, world_size: usize, port: u16) -> Ranks {
    Ranks {
        rank,
        world_size,
        local_rank: rank,
        local_world_size: world_size,
        master: "127.0.0.1".into(),
        port,
        secret: Secret::none(),
    }
}

/// Two ranks that share this machine's first device, at a port that is free now.
pub fn two_ranks() -> [Ranks; 2] {
    let port = free_port();
    [0, 1].map(|rank| Ranks {
        local_rank: 0,
        ..local_ranks(rank, 2, port)
    })
}

/// Joins the other rank.
pub fn join(ranks: Ranks) -> ProcessGroup {
    ProcessGroup::join(ranks, Duration::from_secs(60)).unwrap()
}

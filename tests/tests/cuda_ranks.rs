//! CUDA devices that train together: each gradient is averaged when it is complete, once, stage by
//! stage, and the ranks follow what ranks on the CPU do. Two ranks share an emulated device, and
//! average by way of the host.

use std::path::Path;
use std::thread;
use std::time::Duration;

use cuda_emulator::Emulator;
use densenet_runtime::cuda::{self, Cache, Device, Placement};
use densenet_runtime::parallel::{Meeting, Parallel, Place, Threads};
use densenet_runtime::plan::Plan;
use densenet_runtime::{Arena, Batch, Executor, Network, Pixels, Sgd, Step, cpu};
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::executor::{load, read, state};
use densenet_tests::networks::Bc;
use densenet_tests::random;

const PLAN: Plan = Bc::PLAN;
const PART: usize = 3;

fn on_cuda() -> cuda::Executor {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let device = Device::open(0).unwrap();
    let options = cuda::Options {
        cache: Cache::Folder(folder.join("kernels")),
        placement: Placement::Apart,
        ..cuda::Options::for_batch(PART)
    };
    cuda::Executor::new(&device, PLAN, options).unwrap()
}

fn on_cpu() -> cpu::Executor {
    let options = cpu::Options {
        threads: 1,
        ..cpu::Options::for_batch(PART)
    };
    cpu::Executor::new(PLAN, options).unwrap()
}

/// What is seen of two steps: losses, gradients, parameters and running statistics.
type Seen = (Vec<f32>, Vec<f32>, Vec<f32>, Vec<f32>);

fn two_steps(executor: &mut dyn Executor, rank: usize) -> Seen {
    load(executor, &random::state(&PLAN, 1));
    let mut losses = Vec::new();
    for step in 0..2 {
        let (pixels, labels) = random::batch(&PLAN, PART, 10 * step + rank as u64);
        let batch = Batch {
            pixels: Pixels::Nchw(&pixels),
            labels: &labels,
        };
        let started = executor.start(batch, Step::default()).unwrap();
        executor.descend(Sgd::default()).unwrap();
        losses.push(executor.finish(started).unwrap().loss as f32);
    }
    let mut sums = [1.0, rank as f64];
    executor.total(&mut sums).unwrap();
    assert_eq!(sums, [2.0, 1.0]);
    let after = state(executor);
    let gradients = read(executor, Arena::Gradients);
    (losses, gradients, after.parameters, after.running)
}

fn together(work: impl Fn(Threads, usize) -> Seen + Sync) -> Vec<Seen> {
    let work = &work;
    thread::scope(|scope| {
        let ranks = Threads::group(2).into_iter().enumerate();
        let threads: Vec<_> = ranks
            .map(|(rank, own)| scope.spawn(move || work(own, rank)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.collect()
    })
}

#[test]
fn devices_that_train_together_follow_ranks_on_the_cpu() {
    Emulator::load(env!("CARGO_TARGET_TMPDIR"));
    let found = together(|collective, rank| {
        let mut executor = on_cuda();
        executor.join_by_host(Box::new(collective)).unwrap();
        two_steps(&mut executor, rank)
    });
    let expected = together(|collective, rank| {
        let mut executor = Parallel::new(Box::new(on_cpu()), Box::new(collective));
        two_steps(&mut executor, rank)
    });
    assert!(found[0] == found[1], "ranks are equal bit for bit");
    let (found, expected) = (&found[0], &expected[0]);
    let mut compare = Comparison::within(TOLERANCE);
    compare.add("losses", &found.0, &expected.0);
    compare.add_parameters("gradient of", &PLAN, &found.1, &expected.1);
    compare.add_parameters("parameter", &PLAN, &found.2, &expected.2);
    compare.add("statistics", &found.3, &expected.3);
    compare.assert("ranks");
}

#[test]
fn without_nccl_the_error_names_it() {
    if cfg!(not(target_os = "linux")) || Path::new("/usr/lib/x86_64-linux-gnu/libnccl.so").exists()
    {
        return;
    }
    Emulator::load(env!("CARGO_TARGET_TMPDIR"));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let place = |rank| Place {
        rank,
        size: 2,
        local_rank: 0,
        master: "127.0.0.1".into(),
        port,
    };
    let patience = Duration::from_secs(60);
    thread::scope(|scope| {
        let other = scope.spawn(move || Meeting::join(place(1), patience).unwrap());
        let meeting = Meeting::join(place(0), patience).unwrap();
        let error = on_cuda().join(meeting).unwrap_err().to_string();
        assert!(error.contains("no NCCL"), "{error}");
        assert!(error.contains("libnccl.so"), "{error}");
        drop(other.join().unwrap());
    });
}

//! A training step needs the memory that the plan says.

use std::sync::{Mutex, PoisonError};

use densenet_models::{DenseNet40K12, DenseNet121};
use densenet_runtime::plan::Recompute;
use densenet_runtime::{Batch, Executor, Network, Pixels, Sgd, Step, cpu};
use densenet_tests::executor::load;
use densenet_tests::memory::{self, Counting};
use densenet_tests::random;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// All threads are counted, so that one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Trains a step; returns the bytes that the executor then holds.
fn used<N: Network>(batch: usize, recompute: Recompute) -> usize {
    let state = random::state(&N::PLAN, 1);
    let (pixels, labels) = random::batch(&N::PLAN, batch, 1);
    let before = memory::bytes();
    let options = cpu::CpuOptions {
        recompute,
        threads: 2,
        ..cpu::CpuOptions::for_batch(batch)
    };
    let mut executor = cpu::CpuExecutor::new(N::PLAN, options).unwrap();
    load(&mut executor, &state);
    let batch = Batch {
        pixels: Pixels::Nchw(&pixels),
        labels: &labels,
    };
    executor.differentiate(batch, Step::default()).unwrap();
    executor.descend(Sgd::default()).unwrap();
    memory::bytes() - before
}

fn check_bytes<N: Network>(batch: usize, recompute: Recompute) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let used = used::<N>(batch, recompute);
    let planned = N::PLAN.training_footprint(recompute).bytes(batch);
    let ratio = used as f64 / planned as f64;
    assert!(
        (0.95..1.05).contains(&ratio),
        "{} with batch {batch}, {recompute:?} recomputed: planned {planned}, used {used}",
        N::NAME
    );
}

#[test]
fn densenet_121_uses_what_is_planned() {
    check_bytes::<DenseNet121>(2, Recompute::Nothing);
}

#[test]
fn densenet_121_uses_what_is_planned_when_it_recomputes() {
    check_bytes::<DenseNet121>(4, Recompute::Bottlenecks);
}

#[test]
fn a_plain_network_uses_what_is_planned() {
    check_bytes::<DenseNet40K12>(24, Recompute::Nothing);
}

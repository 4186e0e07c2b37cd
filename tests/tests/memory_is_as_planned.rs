//! A training step needs the memory that the plan says, and after the first ones allocates
//! nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use densenet_models::{DenseNet40K12, DenseNet121, DenseNetBC100K12};
use densenet_runtime::plan::Recompute;
use densenet_runtime::{Arena, Batch, Executor, Network, Pixels, Sgd, Step, cpu};

/// Counts allocations and bytes of all threads.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
/// The counts are of one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

// SAFETY: everything is the system's allocator's doing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Trains a few steps; returns the bytes that the executor holds and the fewest allocations of a step.
fn train<N: Network>(batch: usize, recompute: Recompute, precision: cpu::Precision) -> [usize; 2] {
    let plan = N::PLAN;
    let parameters = vec![0.01; plan.parameter_count()];
    let input = plan.stem().channels * plan.stem().height * plan.stem().width;
    let images: Vec<f32> = (0..batch * input)
        .map(|i| (i % 101) as f32 / 50.0 - 1.0)
        .collect();
    let labels: Vec<u32> = (0..batch as u32).map(|image| image % 10).collect();
    let before = BYTES.load(Ordering::Relaxed);
    let options = cpu::Options {
        recompute,
        precision,
        threads: 2,
        ..cpu::Options::for_batch(batch)
    };
    let mut executor = cpu::Executor::new(plan, options).unwrap();
    executor.write(Arena::Parameters, &parameters).unwrap();
    // The first step is not counted. The test harness's own thread may allocate meanwhile, but
    // not in each step.
    let mut allocations = usize::MAX;
    for step in 0..4 {
        let start = ALLOCATIONS.load(Ordering::Relaxed);
        let batch = Batch {
            pixels: Pixels::Nchw(&images),
            labels: &labels,
        };
        executor.differentiate(batch, Step::default()).unwrap();
        executor.descend(Sgd::default()).unwrap();
        if step > 0 {
            allocations = allocations.min(ALLOCATIONS.load(Ordering::Relaxed) - start);
        }
    }
    [BYTES.load(Ordering::Relaxed) - before, allocations]
}

fn check_bytes<N: Network>(batch: usize, recompute: Recompute) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let [used, _] = train::<N>(batch, recompute, cpu::Precision::F32);
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

#[test]
fn a_training_step_allocates_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for precision in [cpu::Precision::F32, cpu::Precision::Bf16] {
        for recompute in [Recompute::Nothing, Recompute::Bottlenecks] {
            let [_, allocations] = train::<DenseNetBC100K12>(2, recompute, precision);
            assert_eq!(allocations, 0, "{precision:?}, {recompute:?}");
        }
    }
    let [_, allocations] = train::<DenseNet40K12>(2, Recompute::Nothing, cpu::Precision::F32);
    assert_eq!(allocations, 0, "plain layers");
    let [_, allocations] = train::<DenseNet121>(2, Recompute::Nothing, cpu::Precision::F32);
    assert_eq!(allocations, 0, "the ImageNet stem");
}

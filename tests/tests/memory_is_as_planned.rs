//! A training step needs the memory that the plan says.

use cuda_emulator::alone;
use densenet_models::{DenseNet40K12, DenseNet121, DenseNetBC100K12};
use densenet_runtime::plan::{Frozen, Recompute, Training};
use densenet_runtime::{Batch, Executor, Network, Pixels, Sgd, Step, cpu, densenet};
use densenet_tests::executor::load;
use densenet_tests::memory::{self, Counting};
use densenet_tests::random;

densenet! {
    /// Plain layers at images of odd size.
    Odd { blocks: [12, 12, 12], k: 12, input: [3, 33, 35] }
}

densenet! {
    /// 241 channels in rows of 256: the most that rows are padded by.
    Padded { blocks: [20], k: 12, init: 1 }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Trains a step; returns the bytes that the executor then holds.
fn used<N: Network>(batch: usize, training: Training) -> usize {
    let state = random::state(&N::PLAN, 1);
    let (pixels, labels) = random::batch(&N::PLAN, batch, 1);
    let before = memory::bytes();
    let options = cpu::CpuOptions {
        recompute: training.recompute,
        second_moments: training.second_moments,
        average: training.average,
        frozen: training.frozen,
        threads: 1,
        ..cpu::CpuOptions::for_batch(batch)
    };
    let mut executor = cpu::CpuExecutor::new(N::PLAN, options).unwrap();
    load(&mut executor, &state);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    executor.differentiate(batch, Step::default()).unwrap();
    executor.descend(Sgd::default().into()).unwrap();
    memory::bytes() - before
}

/// The batches are so large that a thread's scratch memory, which the plan does not count, is within
/// the 2%.
fn check_bytes<N: Network>(batch: usize) {
    // All threads are counted.
    let _alone = alone();
    for training in [Recompute::Nothing, Recompute::Bottlenecks].map(Training::from) {
        check_training::<N>(batch, training);
    }
}

fn check_training<N: Network>(batch: usize, training: Training) {
    let used = used::<N>(batch, training);
    let planned = N::PLAN.training_footprint(training).bytes(batch);
    let ratio = used as f64 / planned as f64;
    assert!(
        (0.98..1.02).contains(&ratio),
        "{} with batch {batch}, {training:?}: planned {planned}, used {used} ({ratio:.4})",
        N::NAME
    );
}

#[test]
fn densenet_121_uses_what_is_planned() {
    check_bytes::<DenseNet121>(10);
}

#[test]
fn second_moments_and_averages_are_planned() {
    let _alone = alone();
    let training = Training {
        second_moments: true,
        average: true,
        ..Training::default()
    };
    // A fifth of what a step of four images needs.
    let plan = DenseNet121::PLAN;
    let more =
        plan.training_footprint(training).fixed - plan.training_footprint(Recompute::Nothing).fixed;
    assert!(more > plan.training_footprint(training).bytes(4) / 6);
    check_training::<DenseNet121>(4, training);
}

#[test]
fn a_network_whose_head_alone_trains_uses_what_is_planned_and_less_than_half() {
    let _alone = alone();
    let plan = DenseNet121::PLAN;
    let training = Training {
        frozen: Frozen::first(plan.stages().len() - 1),
        ..Training::default()
    };
    check_training::<DenseNet121>(20, training);
    let [head, all] =
        [training, Training::default()].map(|training| plan.training_footprint(training).per_image);
    assert!(
        2 * head < all,
        "{head} bytes an image, {all} where all trains"
    );
}

#[test]
fn a_network_whose_last_block_trains_uses_what_is_planned() {
    let _alone = alone();
    let training = Training {
        // The stem, three blocks and three transitions.
        frozen: Frozen::first(7),
        ..Training::default()
    };
    check_training::<DenseNet121>(20, training);
}

#[test]
fn a_bottleneck_network_uses_what_is_planned() {
    check_bytes::<DenseNetBC100K12>(32);
}

#[test]
fn a_plain_network_uses_what_is_planned() {
    check_bytes::<DenseNet40K12>(64);
}

#[test]
fn a_plain_network_for_images_of_odd_size_uses_what_is_planned() {
    check_bytes::<Odd>(64);
}

#[test]
fn rows_that_are_padded_as_far_as_they_may_are_planned() {
    let block = Padded::PLAN.blocks()[0];
    assert_eq!((block.output(), block.stride()), (241, 256));
    check_bytes::<Padded>(64);
}

//! A training step needs the memory that the plan says.

use cuda_emulator::alone;
use densenet_models::{DenseNet40K12, DenseNet121, DenseNetBC100K12};
use densenet_runtime::plan::{Frozen, Recompute, Training};
use densenet_runtime::{AdamW, Batch, Executor, Network, Pixels, Sgd, Step, cpu, densenet};
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

/// With one thread.
fn options(batch: usize, training: Training) -> cpu::CpuOptions {
    cpu::CpuOptions {
        recompute: training.recompute,
        second_moments: training.second_moments,
        average: training.average,
        frozen: training.frozen,
        threads: 1,
        ..cpu::CpuOptions::for_batch(batch)
    }
}

/// Trains a step; returns the bytes that the executor then holds.
fn used<N: Network>(options: cpu::CpuOptions) -> usize {
    let batch = options.batch;
    let state = random::state(&N::PLAN, 1);
    let (pixels, labels) = random::batch(&N::PLAN, batch, 1);
    let before = memory::bytes();
    let mut executor = cpu::CpuExecutor::new(N::PLAN, options).unwrap();
    load(&mut executor, &state);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    executor.differentiate(batch, Step::default()).unwrap();
    let descent = match options.second_moments {
        true => AdamW::default().into(),
        false => Sgd::default().into(),
    };
    executor.descend(descent).unwrap();
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
    let options = options(batch, training);
    let used = used::<N>(options);
    let planned = options.bytes(&N::PLAN);
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
    // A fifth of the memory of a step of four images.
    let plan = DenseNet121::PLAN;
    let more =
        plan.training_footprint(training).fixed - plan.training_footprint(Recompute::Nothing).fixed;
    assert!(more > plan.training_footprint(training).bytes(4) / 6);
    check_training::<DenseNet121>(4, training);
}

#[test]
fn a_network_whose_head_alone_trains_uses_what_is_planned_and_a_fifth_of_a_whole_one() {
    let _alone = alone();
    let plan = DenseNet121::PLAN;
    let training = Training {
        frozen: Frozen::first(plan.stages().len() - 1),
        ..Training::default()
    };
    check_training::<DenseNet121>(20, training);
    let [head, all] =
        [training, Training::default()].map(|training| options(20, training).bytes(&plan));
    assert!(5 * head < all, "{head} bytes, {all} where all trains");
}

#[test]
fn frozen_stages_have_no_gradients_and_no_moments() {
    let _alone = alone();
    let plan = DenseNet121::PLAN;
    // All but the classifier, whose parameters are an eighth.
    let training = Training {
        frozen: Frozen::first(plan.stages().len() - 1),
        second_moments: true,
        average: true,
        ..Training::default()
    };
    let fixed = plan.training_footprint(training).fixed;
    let parameters = 4 * plan.parameter_count() as u64;
    // Parameters and averages, and little else.
    assert!((2 * parameters..3 * parameters).contains(&fixed), "{fixed}");
    check_training::<DenseNet121>(4, training);
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

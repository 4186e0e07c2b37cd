//! CUDA devices that average by NCCL, beside the backward pass, recorded as one graph and replayed.
//! NCCL and the device are emulated: streams run as late as events let them, so that a gradient
//! averaged before it is complete, or used before it is averaged, is seen.

use std::thread;
use std::time::Duration;

use cuda_emulator::Emulator;
use densenet_runtime::{Batch, Executor, Network, Pixels, Sgd, Step};
use densenet_tests::emulated::{alone, folder};
use densenet_tests::frozen_parts::groups;
use densenet_tests::networks::Bc;
use densenet_tests::random;
use densenet_tests::ranks::{
    PART, are_equal, follow_the_cpu, follow_the_cpu_in, join, on_cuda, steps, steps_in,
    steps_of_which_one_is_broken, together, two_ranks,
};

fn joined(ranks: densenet_runtime::parallel::Ranks) -> densenet_runtime::cuda::CudaExecutor {
    let mut executor = on_cuda();
    executor.join(join(ranks)).unwrap();
    executor
}

#[test]
fn devices_that_average_by_nccl_follow_ranks_on_the_cpu() {
    let _alone = alone();
    let emulator = Emulator::load_with_nccl(folder());
    for seed in 0..4 {
        emulator.seed(seed);
        let found = together(two_ranks().into(), |ranks, rank| {
            steps(&mut joined(ranks), rank)
        });
        follow_the_cpu(&found);
    }
}

/// Statistics of frozen BNs are not averaged, so the others are in several parts.
#[test]
fn devices_average_around_what_is_frozen() {
    let _alone = alone();
    Emulator::load_with_nccl(folder());
    let parts = ["features.denseblock1.denselayer2", "features.transition2"];
    let groups = groups(&Bc::PLAN, &parts);
    let found = together(two_ranks().into(), |ranks, rank| {
        steps_in(&groups, &mut joined(ranks), rank)
    });
    follow_the_cpu_in(&groups, &found);
}

#[test]
fn where_the_loss_of_one_is_not_finite_none_descends() {
    let _alone = alone();
    Emulator::load_with_nccl(folder());
    are_equal(&together(two_ranks().into(), |ranks, rank| {
        steps_of_which_one_is_broken(&mut joined(ranks), rank)
    }));
}

#[test]
fn a_rank_that_waits_for_one_that_has_gone_is_told() {
    let _alone = alone();
    Emulator::load_with_nccl(folder());
    // It is noticed while the device averages, or before averages are launched.
    for pause in [0, 500].map(Duration::from_millis) {
        one_goes(pause);
    }
}

/// Such as one whose device has too little memory.
#[test]
fn a_rank_that_goes_before_nccl_connects_is_named() {
    let _alone = alone();
    Emulator::load_with_nccl(folder());
    let [first, second] = two_ranks();
    thread::scope(|scope| {
        let other = scope.spawn(move || drop(join(second)));
        let group = join(first);
        other.join().unwrap();
        let error = on_cuda().join(group).unwrap_err().to_string();
        assert!(error.contains("rank 0 lost rank 1"), "{error}");
    });
}

/// The second of two ranks goes after a step, and the first one takes another some time later.
fn one_goes(pause: Duration) {
    let [first, second] = two_ranks();
    thread::scope(|scope| {
        let one_step = |executor: &mut dyn Executor| {
            let (pixels, labels) = random::batch(&Bc::PLAN, PART, 1);
            let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
            let started = executor.step(batch, Step::default(), Sgd::default().into())?;
            executor.finish(started)
        };
        let other = scope.spawn(move || one_step(&mut joined(second)).unwrap());
        let mut executor = joined(first);
        one_step(&mut executor).unwrap();
        if !pause.is_zero() {
            other.join().unwrap();
            thread::sleep(pause);
        }
        let error = one_step(&mut executor).unwrap_err().to_string();
        assert!(error.contains("rank 0 lost rank 1"), "{error}");
    });
}

//! A training step is a graph: recorded once, and replayed by one call, whatever changes from step
//! to step. The tests count the calls of the (emulated) driver.

use cuda_emulator::{Call, Kind};
use densenet_runtime::{Batch, Executor, Network, Pixels, Sgd, Step};
use densenet_tests::emulated::{alone, device, on_cuda, options};
use densenet_tests::executor::load;
use densenet_tests::networks::Bc;
use densenet_tests::random;

const BATCH: usize = 3;
/// The launches beside a graph: a batch comes from one of two places in turn.
const BESIDE: [&str; 1] = ["images_from_nchw"];

/// The driver's calls in a step that differs from others in everything that may change.
fn step(executor: &mut dyn Executor, number: usize, images: usize) -> Vec<Call> {
    let (emulator, _) = device();
    let (pixels, labels) = random::batch(&Bc::PLAN, images, number as u64);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    let changes = Step {
        label_smoothing: 0.1 * number as f32,
        scale: 1.0 / (number + 1) as f32,
        accumulate: number % 2 == 1,
        seed: number as u64,
    };
    let sgd = Sgd {
        learning_rate: 0.1 / (number + 1) as f32,
        momentum: 0.1 * number as f32,
        ..Sgd::default()
    };
    emulator.calls(|| {
        let pending = executor.step(batch, changes, sgd.into()).unwrap();
        executor.finish(pending).unwrap();
    })
}

fn count(calls: &[Call], kind: Kind) -> usize {
    calls.iter().filter(|call| call.kind == kind).count()
}

/// Kernels that are launched one by one.
fn eager(calls: &[Call]) -> Vec<&str> {
    let launches = calls.iter().filter(|call| call.kind == Kind::Launch);
    let own = launches.filter(|call| !call.captured);
    own.map(|call| call.kernel.as_str()).collect()
}

#[test]
fn a_step_is_recorded_once_and_replayed_by_one_call() {
    let _alone = alone();
    let (emulator, device) = device();
    let plan = Bc::PLAN.with_dropout(0.1).unwrap();
    let mut executor = on_cuda(&device, &plan, options(BATCH));
    load(&mut executor, &random::state(&plan, 1));

    // The first step loads the kernels.
    let first = step(&mut executor, 0, BATCH);
    assert_eq!(count(&first, Kind::Capture), 0);
    let second = step(&mut executor, 1, BATCH);
    assert_eq!(count(&second, Kind::Capture), 1);
    let recorded = second.iter().filter(|call| call.captured);
    let recorded = recorded.filter(|call| call.kind == Kind::Launch).count();
    assert!(recorded > 30, "a step of {recorded} launches");
    assert_eq!(eager(&first).len(), recorded + BESIDE.len());
    let of_descent = |call: &&Call| call.captured && call.kernel == "descend";
    assert_eq!(
        second.iter().filter(of_descent).count(),
        1,
        "descent is part of it"
    );
    for number in 2..6 {
        let before = emulator.launches();
        let next = step(&mut executor, number, BATCH);
        let ran = (emulator.launches() - before) as usize;
        let launched = eager(&next);
        assert_eq!(
            count(&next, Kind::Capture),
            0,
            "step {number} is recorded again"
        );
        assert_eq!(count(&next, Kind::Replay), 1, "step {number}");
        assert_eq!(launched, BESIDE, "step {number}");
        assert_eq!(ran, recorded + launched.len(), "step {number}");
    }
}

#[test]
fn evaluation_has_a_graph_of_its_own_and_a_batch_that_is_not_full_has_none() {
    let _alone = alone();
    let (emulator, device) = device();
    let mut executor = on_cuda(&device, &Bc::PLAN, options(BATCH));
    load(&mut executor, &random::state(&Bc::PLAN, 1));
    step(&mut executor, 0, BATCH);
    step(&mut executor, 1, BATCH);
    let (pixels, labels) = random::batch(&Bc::PLAN, BATCH, 7);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    let mut evaluate = || {
        emulator.calls(|| {
            executor.evaluate(batch).unwrap();
        })
    };
    let [first, second, third] = [evaluate(), evaluate(), evaluate()];
    assert_eq!(count(&first, Kind::Capture), 0);
    assert_eq!(count(&second, Kind::Capture), 1);
    assert_eq!(count(&third, Kind::Capture), 0);
    assert_eq!(count(&third, Kind::Replay), 1);
    assert_eq!(eager(&third), BESIDE);
    let partial = step(&mut executor, 1, BATCH - 1);
    assert_eq!(count(&partial, Kind::Replay), 0);
    assert!(eager(&partial).len() > 30);
    // Those recorded before serve as before.
    let full = step(&mut executor, 2, BATCH);
    assert_eq!(count(&full, Kind::Capture), 0);
    assert_eq!(count(&full, Kind::Replay), 1);
}

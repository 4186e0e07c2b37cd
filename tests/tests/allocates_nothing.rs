//! A training step and a frozen inference allocate nothing after the first, on any of their
//! threads.

use cuda_emulator::alone;
use densenet_models::{DenseNet40K12, DenseNet121, DenseNetBC100K12};
use densenet_runtime::cpu::{self, FrozenOptions, Precision};
use densenet_runtime::plan::{BlockSpec, Frozen, Plan, Ratio, Recompute, Spec, StemKind};
use densenet_runtime::{Batch, Executor, MapsOf, Network, Outputs, Pixels, Sgd, Step};
use densenet_tests::executor::load;
use densenet_tests::frozen_parts::groups;
use densenet_tests::memory::{Counting, fewest_allocations};
use densenet_tests::random;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn check_step(plan: &Plan, precision: Precision, recompute: Recompute, frozen: Frozen) {
    check_step_of(plan, precision, recompute, frozen, &[]);
}

fn check_step_of(
    plan: &Plan,
    precision: Precision,
    recompute: Recompute,
    frozen: Frozen,
    parts: &[&str],
) {
    let options = cpu::CpuOptions {
        recompute,
        precision,
        frozen,
        threads: 2,
        ..cpu::CpuOptions::for_batch(2)
    };
    let mut executor = cpu::CpuExecutor::new(plan.clone(), options).unwrap();
    load(&mut executor, &random::state(plan, 1));
    executor.set_groups(&groups(plan, parts)).unwrap();
    let (pixels, labels) = random::batch(plan, 2, 1);
    let mut step = || {
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
        executor.differentiate(batch, Step::default()).unwrap();
        executor.descend(Sgd::default().into()).unwrap();
    };
    step();
    let allocations = fewest_allocations(3, step);
    assert_eq!(
        allocations, 0,
        "{plan}\n{precision:?}, {recompute:?}, {frozen:?}, {parts:?}"
    );
}

#[test]
fn a_training_step_allocates_nothing() {
    let _alone = alone();
    for precision in [Precision::F32, Precision::Bf16] {
        for recompute in [Recompute::Nothing, Recompute::Bottlenecks] {
            let frozen = Frozen::default();
            check_step(&DenseNetBC100K12::PLAN, precision, recompute, frozen);
        }
    }
    // Plain layers, and the ImageNet stem.
    for plan in [DenseNet40K12::PLAN, DenseNet121::PLAN] {
        check_step(&plan, Precision::F32, Recompute::Nothing, Frozen::default());
    }
}

#[test]
fn a_training_step_with_frozen_stages_allocates_nothing() {
    let _alone = alone();
    let plan = DenseNetBC100K12::PLAN;
    // The stem; a block; a transition; all but the classifier.
    for count in [1, 2, 3, 7] {
        let frozen = Frozen::first(count);
        check_step(&plan, Precision::F32, Recompute::Nothing, frozen);
    }
}

#[test]
fn a_training_step_with_frozen_parts_allocates_nothing() {
    let _alone = alone();
    let plan = DenseNetBC100K12::PLAN;
    let parts = ["features.denseblock1.denselayer3", "features.transition1"];
    for parts in [&parts[..], &["norms"]] {
        let recompute = Recompute::Bottlenecks;
        check_step_of(&plan, Precision::F32, recompute, Frozen::default(), parts);
    }
}

#[test]
fn a_frozen_inference_allocates_nothing() {
    let _alone = alone();
    for (stem, bottleneck) in [(StemKind::ImageNet, Some(4)), (StemKind::Cifar, None)] {
        let block = BlockSpec {
            layers: 2,
            growth: 12,
        };
        let spec = Spec {
            blocks: vec![block; 2],
            theta: Ratio::new(1, 2),
            bottleneck,
            stem,
            init: 24,
            input: [3, 40, 36],
            classes: 10,
            dropout: 0.0,
        };
        let plan = spec.plan().unwrap();
        let state = random::state(&plan, 1);
        let options = FrozenOptions {
            threads: 2,
            outputs: Outputs::all(4),
            ..FrozenOptions::for_batch(3)
        };
        let mut frozen =
            cpu::Frozen::new(&plan, &state.parameters, &state.running, options).unwrap();
        let images = vec![0.5; 3 * 3 * 40 * 36];
        let bytes = [7; 3 * 3 * 40 * 36];
        let allocations = fewest_allocations(5, || {
            for count in [3, 1, 2] {
                let len = count * 3 * 40 * 36;
                let found = frozen.infer(Pixels::Nchw(&images[..len]), count).is_ok();
                let bytes = Pixels::Nhwc {
                    bytes: &bytes[..len],
                    mean: &[0.5; 3],
                    std: &[0.5; 3],
                };
                assert!(found && frozen.infer(bytes, count).is_ok());
                for of in [MapsOf::Top(4), MapsOf::Classes(&[3, 9])] {
                    let said = frozen.infer_with(bytes, count, of).unwrap();
                    assert!(!said.class_maps.is_empty() && !said.block(1).is_empty());
                }
            }
        });
        assert_eq!(allocations, 0, "{stem:?}");
    }
}

//! The memory of a CUDA executor is known before it is made, and is what the plan says.

use cuda_emulator::Kind;
use densenet_models::{DenseNet121, DenseNet201, DenseNetBC100K12};
use densenet_runtime::cuda::{self, Placement};
use densenet_runtime::plan::{Frozen, Plan, Precision, Recompute};
use densenet_runtime::{Batch, Executor, Network, Pixels, Sgd, Step};
use densenet_tests::emulated::{alone, device, on_cuda, options};
use densenet_tests::executor::load;
use densenet_tests::networks::Bc;
use densenet_tests::random;

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

#[test]
fn the_executor_allocates_what_its_options_say() {
    let _alone = alone();
    let (emulator, device) = device();
    for precision in PRECISIONS {
        for recompute in [Recompute::Nothing, Recompute::Bottlenecks] {
            for frozen in [0, 3] {
                let options = cuda::CudaOptions {
                    precision,
                    recompute,
                    frozen: Frozen::first(frozen),
                    placement: Placement::Together,
                    ..options(5)
                };
                let (said, before) = (options.bytes(&Bc::PLAN), emulator.memory_used());
                let executor = on_cuda(&device, &Bc::PLAN, options);
                assert_eq!(
                    emulator.memory_used() - before,
                    said,
                    "{precision:?} {recompute:?}, {frozen} stages frozen"
                );
                assert_eq!(executor.bytes(), said);
            }
        }
    }
}

/// With one image, parameters are most of a network's memory: those of DenseNet-121 have 32 MB, and as
/// operands of products 32 more.
#[test]
fn frozen_parameters_have_neither_gradients_nor_moments() {
    let plan = DenseNet121::PLAN;
    let bytes = |frozen| {
        let options = cuda::CudaOptions {
            second_moments: true,
            frozen: Frozen::first(frozen),
            ..cuda::CudaOptions::for_batch(1)
        };
        options.bytes(&plan)
    };
    let parameters = 4 * plan.parameter_count();
    let (classifier_alone, all) = (bytes(plan.stages().len() - 1), bytes(0));
    assert!(classifier_alone < 3 * parameters, "{classifier_alone}");
    assert!(all > classifier_alone + 3 * parameters * 8 / 10, "{all}");
}

#[test]
fn all_buffers_are_one_allocation_and_training_makes_none() {
    let _alone = alone();
    let (emulator, device) = device();
    let allocations = |work: &mut dyn FnMut()| -> Vec<u64> {
        let calls = emulator.calls(work);
        let own = calls.iter().filter(|call| call.kind == Kind::Allocation);
        own.map(|call| call.bytes).collect()
    };
    let together = cuda::CudaOptions {
        placement: Placement::Together,
        ..options(3)
    };
    let mut executor = None;
    let made = allocations(&mut || executor = Some(on_cuda(&device, &Bc::PLAN, together.clone())));
    assert_eq!(made, [together.bytes(&Bc::PLAN) as u64]);
    // Separate allocations, whose number shows.
    let apart = allocations(&mut || drop(on_cuda(&device, &Bc::PLAN, options(3))));
    assert!(apart.len() > 20, "{apart:?}");
    let mut executor = executor.expect("an executor");
    load(&mut executor, &random::state(&Bc::PLAN, 1));
    let while_it_runs = allocations(&mut || {
        for images in [3, 3, 2] {
            let (pixels, labels) = random::batch(&Bc::PLAN, images, 1);
            let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
            executor.differentiate(batch, Step::default()).unwrap();
            executor.descend(Sgd::default().into()).unwrap();
            executor.evaluate(batch).unwrap();
        }
    });
    assert!(while_it_runs.is_empty(), "{while_it_runs:?}");
}

/// Bytes of a training step by the plan's buffers, with maps and their gradients in a precision.
fn planned(plan: &Plan, batch: usize, precision: Precision, recompute: Recompute) -> f64 {
    let buffers = plan.buffers(recompute);
    let maps = [
        buffers.input,
        buffers.stem,
        buffers.blocks,
        buffers.gradient,
        buffers.handover,
        buffers.bottleneck,
        buffers.bottleneck_gradient,
        buffers.fresh,
    ];
    let maps = precision.bytes() * maps.iter().sum::<usize>();
    let image = maps + 4 * buffers.head + buffers.pool_choice;
    // Running statistics, those before the step, and a batch's mean, deviation and their gradients.
    let state = 3 * plan.parameter_count() + 4 * plan.running_count();
    (4 * state + batch * image) as f64
}

#[test]
fn the_plans_buffers_are_what_is_allocated() {
    let plans: [(&str, Plan); 3] = [
        ("DenseNet-121", DenseNet121::PLAN),
        ("DenseNet-201", DenseNet201::PLAN),
        ("DenseNet-BC-100-12", DenseNetBC100K12::PLAN),
    ];
    for (name, plan) in plans {
        for precision in PRECISIONS {
            for recompute in [Recompute::Nothing, Recompute::Bottlenecks] {
                let options = cuda::CudaOptions {
                    precision,
                    recompute,
                    ..cuda::CudaOptions::for_batch(128)
                };
                let bytes = options.bytes(&plan) as f64;
                let planned = planned(&plan, 128, precision, recompute);
                println!(
                    "{name} {precision:?} {recompute:?}: {:.0} MB, planned {:.0}",
                    bytes / 1e6,
                    planned / 1e6
                );
                // On top come the images as they were handed over, in f32, twice: the next batch
                // arrives while one is computed. The weights as operands of products. The pooled
                // operands of transitions with several tiles of maps. And scratch: up to 16 MiB for
                // weights' gradients, and the sums of tiles.
                let images = 2.0 * 4.0 * 128.0 * plan.buffers(recompute).input as f64;
                let weights = (precision.bytes() * plan.parameter_count()) as f64;
                let transitions = plan.transitions().iter();
                let several = transitions.filter(|transition| transition.output > 128);
                let pooled = several.map(|it| it.input * (it.height / 2) * (it.width / 2));
                let pooled = (128 * precision.bytes() * pooled.sum::<usize>()) as f64;
                let known = images + weights + pooled;
                let least = (bytes - known) / planned - 1.0;
                let most = (bytes - known - f64::from(16 << 20)) / planned - 1.0;
                assert!(
                    least > -0.02 && most < 0.02,
                    "{name} {precision:?} {recompute:?}: {most:+.3} to {least:+.3}"
                );
            }
        }
    }
}

#[test]
fn a_batch_of_no_images_has_the_memory_of_the_parameters() {
    let bytes = |batch| cuda::CudaOptions::for_batch(batch).bytes(&Bc::PLAN);
    let none = bytes(0);
    assert!(none >= 12 * Bc::PLAN.parameter_count() && none < bytes(1));
}

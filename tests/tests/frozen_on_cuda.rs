//! The frozen form on a CUDA device has the outputs of the CPU's, and the bits of an evaluation by
//! the executor, whose kernels it launches, in the memory that is known before it is made. On an
//! emulated device, where memory starts as NaN and each buffer ends at a page without access.

use cuda_emulator::{Call, Kind};
use densenet_models::{DenseNet121, DenseNet201, DenseNetBC100K12};
use densenet_runtime::cpu;
use densenet_runtime::cuda::{self, CudaDevice, Placement};
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::plan::{Plan, Precision};
use densenet_runtime::weights::State;
use densenet_runtime::{Batch, Device, ExecutorError, Frozen, Network, Pixels};
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::emulated::{alone, device, device_that_is_emulated, on_cuda, options};
use densenet_tests::executor::{evaluate, load};
use densenet_tests::networks::{Bc, Case, ImageNetBc, many_maps};
use densenet_tests::{each_network, random};

/// How far bf16 may be from f32.
const BFLOAT16: f64 = 2e-2;
/// The most images of a call.
const CAPACITY: usize = 4;

/// Buffers apart, so that an access beyond one is seen; kernels kept for the next run.
fn frozen_options(precision: Precision) -> cuda::FrozenOptions {
    let executor = options(CAPACITY);
    cuda::FrozenOptions {
        precision,
        cache: executor.cache,
        placement: executor.placement,
        ..cuda::FrozenOptions::for_batch(CAPACITY)
    }
}

fn on_device(
    device: &CudaDevice,
    plan: &Plan,
    state: &State,
    precision: Precision,
) -> cuda::Frozen {
    let options = frozen_options(precision);
    let frozen = cuda::Frozen::new(device, plan, &state.parameters, &state.running, options);
    frozen.unwrap_or_else(|error| panic!("{error}"))
}

fn on_host(plan: &Plan, state: &State) -> cpu::Frozen {
    let options = cpu::FrozenOptions {
        threads: 1,
        ..cpu::FrozenOptions::for_batch(CAPACITY)
    };
    let frozen = cpu::Frozen::new(plan, &state.parameters, &state.running, options);
    frozen.unwrap_or_else(|error| panic!("{error}"))
}

/// The logits of a full batch, of smaller ones, and of bytes, in an order in which each call finds
/// what another has left.
fn agrees(plan: &Plan, name: &str, precision: Precision, tolerance: f64) {
    let (emulator, device) = device();
    let state = random::state(plan, 3);
    let mut cuda = on_device(&device, plan, &state, precision);
    let mut cpu = on_host(plan, &state);
    let stem = plan.stem();
    let image = stem.channels * stem.height * stem.width;
    let bytes: Vec<u8> = (0..CAPACITY * image)
        .map(|i| (i * 89 % 251) as u8)
        .collect();
    let (mean, std) = (vec![0.4; stem.channels], vec![0.25; stem.channels]);
    let mut compare = Comparison::within(tolerance);
    let calls = [
        (CAPACITY, false),
        (1, true),
        (CAPACITY - 1, false),
        (CAPACITY, true),
    ];
    for (call, (images, is_bytes)) in calls.into_iter().enumerate() {
        emulator.seed(call as u64);
        let (pixels, _) = random::batch(plan, images, call as u64);
        let pixels = match is_bytes {
            false => Pixels::Nchw(&pixels),
            true => Pixels::Nhwc {
                bytes: &bytes[..images * image],
                mean: &mean,
                std: &std,
            },
        };
        let expected = cpu.infer(pixels, images).unwrap();
        let found = cuda.infer(pixels, images);
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        compare.add(format!("call {call}, {images} images"), found, expected);
    }
    compare.assert(name);
}

fn agrees_with_the_cpu<N: Case>() {
    let _alone = alone();
    agrees(&N::PLAN, N::GOLDEN, Precision::F32, TOLERANCE);
    agrees(&N::PLAN, N::GOLDEN, Precision::Bf16, BFLOAT16);
}

each_network!(agrees_with_the_cpu);

#[test]
fn transitions_that_pool_before_their_product_take_turns() {
    let _alone = alone();
    agrees(&many_maps(), "many maps", Precision::F32, TOLERANCE);
}

#[test]
fn it_has_the_bits_of_an_evaluation_whatever_the_batch_and_the_order_of_blocks() {
    let _alone = alone();
    let (emulator, device) = device();
    let plan = ImageNetBc::PLAN;
    let state = random::state(&plan, 5);
    let (pixels, labels) = random::batch(&plan, CAPACITY, 6);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    for precision in [Precision::F32, Precision::Bf16] {
        let own = cuda::CudaOptions {
            precision,
            ..options(CAPACITY)
        };
        let mut executor = on_cuda(&device, &plan, own);
        load(&mut executor, &state);
        let expected = evaluate(&mut executor, batch);
        let mut frozen = on_device(&device, &plan, &state, precision);
        for seed in 1..3 {
            emulator.seed(seed);
            let found = frozen.infer(batch.pixels, CAPACITY).unwrap();
            assert_eq!(found, expected, "{precision:?}");
        }
        let one = pixels.len() / CAPACITY;
        for (image, expected) in pixels.chunks(one).zip(expected.chunks(plan.classes())) {
            let found = frozen.infer(Pixels::Nchw(image), 1).unwrap();
            assert_eq!(found, expected, "{precision:?}, one image");
        }
    }
}

#[test]
fn a_network_is_frozen_on_either_device_by_one_call() {
    let _alone = alone();
    let (_, device) = device();
    let mut net = Cpu::seed_from_u64(2).build_module::<Bc, f32>();
    random::state(&Bc::PLAN, 7).store_into(&mut net).unwrap();
    let (pixels, _) = random::batch(&Bc::PLAN, 2, 8);
    let options = cpu::FrozenOptions {
        threads: 1,
        ..cpu::FrozenOptions::for_batch(2)
    };
    let [found, expected] = [Device::Cuda(device), Device::Cpu].map(|device| {
        let mut frozen = net.freeze_on(&device, options).unwrap();
        assert_eq!((frozen.capacity(), frozen.plan()), (2, &Bc::PLAN));
        assert!(frozen.bytes() > 0);
        assert_eq!(
            matches!(frozen, Frozen::Cpu(_)),
            matches!(device, Device::Cpu)
        );
        frozen.infer(Pixels::Nchw(&pixels), 2).unwrap().to_vec()
    });
    let mut compare = Comparison::within(TOLERANCE);
    compare.add("logits", &found, &expected);
    compare.assert("bc");
}

fn count(calls: &[Call], kind: Kind) -> usize {
    calls.iter().filter(|call| call.kind == kind).count()
}

#[test]
fn a_call_is_one_graph_of_the_way_forward_alone() {
    let _alone = alone();
    let (emulator, device) = device();
    let plan = Bc::PLAN;
    let state = random::state(&plan, 1);
    let mut frozen = None;
    let made = emulator.calls(|| {
        frozen = Some(on_device(&device, &plan, &state, Precision::F32));
    });
    assert_eq!(count(&made, Kind::Capture), 1);
    let mut frozen = frozen.expect("a network");
    let mut launched = |images| {
        let (pixels, _) = random::batch(&plan, images, 1);
        let mut of = (Vec::new(), 0);
        let before = emulator.launches();
        of.0 = emulator.calls(|| {
            frozen.infer(Pixels::Nchw(&pixels), images).unwrap();
        });
        of.1 = (emulator.launches() - before) as usize;
        of
    };
    let layers: usize = plan.blocks().iter().map(|block| block.layers).sum();
    // Of images, the stem, two convolutions a layer, a transition after each block but the last, and
    // the head: its pool and the classifier.
    let expected = 1 + 1 + 2 * layers + (plan.blocks().len() - 1) + 2;
    for images in [CAPACITY, CAPACITY - 1, CAPACITY] {
        let (calls, ran) = launched(images);
        let replays = usize::from(images == CAPACITY);
        assert_eq!(count(&calls, Kind::Replay), replays, "{images} images");
        assert_eq!(count(&calls, Kind::Capture), 0, "{images} images");
        assert_eq!(count(&calls, Kind::Allocation), 0, "{images} images");
        assert_eq!(ran, expected, "{images} images");
        let copies = calls
            .iter()
            .filter(|call| matches!(call.kind, Kind::CopyIn | Kind::CopyOut));
        assert!(
            copies.into_iter().all(|call| call.pinned),
            "{images} images"
        );
    }
}

#[test]
fn it_allocates_what_its_options_say_at_once_and_gives_back_what_it_was_made_from() {
    let _alone = alone();
    let Some((emulator, device)) = device_that_is_emulated() else {
        return;
    };
    let plan = Bc::PLAN;
    let state = random::state(&plan, 1);
    for precision in [Precision::F32, Precision::Bf16] {
        let together = cuda::FrozenOptions {
            placement: Placement::Together,
            ..frozen_options(precision)
        };
        let said = cuda::Frozen::bytes_of(&plan, &together);
        let before = emulator.memory_used();
        let mut frozen = None;
        let calls = emulator.calls(|| {
            let (parameters, running) = (&state.parameters, &state.running);
            let made = cuda::Frozen::new(&device, &plan, parameters, running, together.clone());
            frozen = Some(made.unwrap());
        });
        let frozen = frozen.expect("a network");
        let allocated = calls.iter().filter(|call| call.kind == Kind::Allocation);
        let allocated: Vec<_> = allocated.map(|call| call.bytes).collect();
        assert_eq!(Some(allocated[0]), said, "{precision:?}");
        assert_eq!(
            Some((emulator.memory_used() - before) as u64),
            said,
            "{precision:?}"
        );
        assert_eq!(Some(frozen.bytes()), said, "{precision:?}");
        drop(frozen);
        assert_eq!(emulator.memory_used(), before, "{precision:?}");
    }
    let none = cuda::FrozenOptions {
        batch: 0,
        ..frozen_options(Precision::F32)
    };
    assert_eq!(cuda::Frozen::bytes_of(&plan, &none), None);
}

/// Bytes by the plan alone: weights, BN, and of a batch the images as they come and as they are
/// computed with, the stem's maps, two blocks', one layer's bottleneck maps, what is pooled.
fn planned(plan: &Plan, batch: usize, precision: Precision) -> f64 {
    let of_blocks = |first: usize| {
        let blocks = plan.blocks().iter().skip(first).step_by(2);
        blocks.map(|block| block.pixels() * block.output()).max()
    };
    let narrow = plan
        .blocks()
        .iter()
        .map(|block| block.bottleneck_maps())
        .max();
    let wide = plan
        .transitions()
        .iter()
        .filter(|transition| transition.output > 128);
    let pooled = wide
        .map(|it| it.input * (it.height / 2) * (it.width / 2))
        .max();
    let buffers = plan.buffers(densenet_runtime::plan::Recompute::Nothing);
    let all = [of_blocks(0), of_blocks(1), narrow, pooled];
    let maps = buffers.input + buffers.stem + all.into_iter().flatten().sum::<usize>();
    let floats = buffers.input + plan.features() + plan.classes();
    let image = precision.bytes() * maps + 4 * floats + buffers.pool_choice;
    let classifier = (plan.features() + 1) * plan.classes();
    let weights = plan.parameter_count() - classifier - plan.stem().weight_len();
    let alone = classifier + plan.stem().weight_len();
    let affine = plan.running_count();
    (precision.bytes() * weights + 4 * (alone + affine) + batch * image) as f64
}

#[test]
fn its_memory_is_that_of_weights_and_a_way_forward() {
    let plans: [(&str, Plan); 3] = [
        ("DenseNet-121", DenseNet121::PLAN),
        ("DenseNet-201", DenseNet201::PLAN),
        ("DenseNet-BC-100-12", DenseNetBC100K12::PLAN),
    ];
    for (name, plan) in plans {
        for precision in [Precision::F32, Precision::Bf16] {
            for batch in [1, 32] {
                let options = cuda::FrozenOptions {
                    precision,
                    ..cuda::FrozenOptions::for_batch(batch)
                };
                let bytes = cuda::Frozen::bytes_of(&plan, &options).unwrap() as f64;
                let planned = planned(&plan, batch, precision);
                println!(
                    "{name} {precision} batch {batch}: {:.1} MB, planned {:.1}",
                    bytes / 1e6,
                    planned / 1e6
                );
                let off = bytes / planned - 1.0;
                assert!(
                    off.abs() < 0.02,
                    "{name} {precision} batch {batch}: {off:+.3}"
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_frozen_or_does_not_fit_is_refused_with_what_to_do() {
    let _alone = alone();
    let (_, device) = device();
    let plan = Bc::PLAN;
    let state = random::state(&plan, 1);
    let refused = |batch, parameters: &[f32], running: &[f32]| {
        let options = cuda::FrozenOptions {
            batch,
            ..frozen_options(Precision::F32)
        };
        let refused = cuda::Frozen::new(&device, &plan, parameters, running, options);
        ExecutorError::from(refused.err().expect("an error"))
    };
    let State {
        parameters,
        running,
    } = &state;
    let error = refused(0, parameters, running);
    assert!(
        matches!(error, ExecutorError::Capacity { found: 0, .. }),
        "{error}"
    );
    let error = refused(1, &parameters[1..], running);
    let is_of = |error: &ExecutorError, of: &str| matches!(error, ExecutorError::Length { what, .. } if *what == of);
    assert!(is_of(&error, "parameters"), "{error}");
    let error = refused(1, parameters, &running[1..]);
    assert!(is_of(&error, "running statistics"), "{error}");

    let mut frozen = on_device(&device, &plan, &state, Precision::F32);
    let (pixels, _) = random::batch(&plan, CAPACITY + 1, 1);
    let error = frozen
        .infer(Pixels::Nchw(&pixels), CAPACITY + 1)
        .unwrap_err();
    assert!(
        matches!(
            error,
            ExecutorError::BatchSize {
                found: 5,
                capacity: CAPACITY
            }
        ),
        "{error}"
    );
    let error = frozen.infer(Pixels::Nchw(&pixels[1..]), 1).unwrap_err();
    assert!(matches!(error, ExecutorError::Pixels { .. }), "{error}");
    // A call that was refused leaves the next ones as they are.
    let image = pixels.len() / (CAPACITY + 1);
    assert!(frozen.infer(Pixels::Nchw(&pixels[..image]), 1).is_ok());
}

#[test]
fn too_little_memory_says_what_there_is_and_a_failed_launch_is_an_error() {
    let _alone = alone();
    let Some((emulator, device)) = device_that_is_emulated() else {
        return;
    };
    let plan = Bc::PLAN;
    let state = random::state(&plan, 1);
    // Too little for the network, and enough for it but not for what it is made from.
    let own = cuda::Frozen::bytes_of(&plan, &frozen_options(Precision::F32)).unwrap() as usize;
    for room in [own / 2, own] {
        emulator.set_memory(emulator.memory_used() + room);
        let options = frozen_options(Precision::F32);
        let frozen = cuda::Frozen::new(&device, &plan, &state.parameters, &state.running, options);
        emulator.set_memory(1 << 30);
        let error = frozen.err().expect("an error").to_string();
        assert!(error.contains("are free); use a smaller batch"), "{error}");
        assert!(!error.contains("recompute"), "{error}");
    }
    let mut frozen = on_device(&device, &plan, &state, Precision::F32);
    let (pixels, _) = random::batch(&plan, 1, 1);
    emulator.fail_launch(5);
    let failed = frozen.infer(Pixels::Nchw(&pixels), 1).map(<[f32]>::to_vec);
    emulator.recover();
    let error = failed.expect_err("an error").to_string();
    assert!(error.contains("launch failure"), "{error}");
}

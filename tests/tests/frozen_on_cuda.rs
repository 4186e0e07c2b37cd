//! The frozen form on a CUDA device has the outputs of the CPU's, and the bits of an evaluation by
//! an executor of the same capacity, whose kernels it launches, in the memory that is known before it
//! is made. On an emulated device, where memory starts as NaN and each buffer ends at a page without access.

use cuda_emulator::{Call, Kind};
use densenet_models::{DenseNet121, DenseNet201, DenseNetBC100K12};
use densenet_runtime::cpu;
use densenet_runtime::cuda::{self, CudaDevice, Placement};
use densenet_runtime::plan::{Block, Plan, Precision};
use densenet_runtime::weights::State;
use densenet_runtime::{Batch, ExecutorError, MapsOf, Network, Outputs, Pixels};
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::emulated::{
    alone, device, device_that_is_emulated, frozen_on_cuda, frozen_options, on_cuda, options,
};
use densenet_tests::executor::{evaluate, load};
use densenet_tests::networks::{Bc, Case, ImageNetBc, many_channels, many_maps};
use densenet_tests::{each_network, random};

/// How far bf16 may be from f32.
const BFLOAT16: f64 = 2e-2;
/// How far features and maps in bf16 may be from f32. `imagenet_bc`, whose last maps are one pixel, may be
/// twice as far: with these weights and bytes, a pattern that repeats, 2.9e-2 are seen, on a card and on the
/// emulated device. PyTorch's autocast is then 2.7e-2 away, and rounding the weights alone makes 2.1e-2, which
/// no product of bf16 can do without. With the weights and images of the golden files it is 9e-3
/// (`frozen_agrees_with_pytorch`).
fn bfloat16_of_maps(golden: &str) -> f64 {
    match golden {
        ImageNetBc::GOLDEN => 2.0 * BFLOAT16,
        _ => BFLOAT16,
    }
}
/// All outputs, with the maps of two classes.
const OUTPUTS: Outputs = Outputs::all(2);
/// The most images of a call.
const CAPACITY: usize = 4;

fn own_options(precision: Precision) -> cuda::FrozenOptions {
    cuda::FrozenOptions {
        precision,
        outputs: OUTPUTS,
        ..frozen_options(CAPACITY)
    }
}

fn on_device(
    device: &CudaDevice,
    plan: &Plan,
    state: &State,
    precision: Precision,
) -> cuda::Frozen {
    frozen_on_cuda(device, plan, state, own_options(precision))
}

fn on_host(plan: &Plan, state: &State) -> cpu::Frozen {
    let options = cpu::FrozenOptions {
        threads: 1,
        outputs: OUTPUTS,
        ..cpu::FrozenOptions::for_batch(CAPACITY)
    };
    let frozen = cpu::Frozen::new(plan, &state.parameters, &state.running, options);
    frozen.unwrap_or_else(|error| panic!("{error}"))
}

/// All outputs of a full batch, of smaller ones, and of bytes, in an order in which each call finds
/// the leftovers of another.
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
    let mut maps = Comparison::within(match precision {
        Precision::F32 => tolerance,
        Precision::Bf16 => bfloat16_of_maps(name),
    });
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
        // In bf16 other classes may be the first two.
        let of = match precision {
            Precision::F32 if call == 0 => MapsOf::Top(2),
            _ if call == 1 => MapsOf::Nothing,
            _ => MapsOf::Classes(&[1, 0]),
        };
        let expected = cpu.infer_with(pixels, images, of).unwrap();
        let found = cuda.infer_with(pixels, images, of);
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.mapped, expected.mapped, "call {call}");
        compare.add(
            format!("call {call}: logits"),
            found.logits,
            expected.logits,
        );
        let logits = found.logits.to_vec();
        let mut add = |what: &str, found: &[f32], expected: &[f32]| {
            maps.add(
                format!("call {call}, {images} images: {what}"),
                found,
                expected,
            );
        };
        add("features", found.features, expected.features);
        add("class maps", found.class_maps, expected.class_maps);
        add("last maps", found.last_maps, expected.last_maps);
        for block in 0..plan.blocks().len() {
            add("block", found.block(block), expected.block(block));
        }
        assert_eq!(cuda.infer(pixels, images).unwrap(), logits, "call {call}");
    }
    compare.assert(name);
    maps.assert(name);
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
    for (plan, precision) in [
        (ImageNetBc::PLAN, Precision::F32),
        (ImageNetBc::PLAN, Precision::Bf16),
        // How many blocks share a product depends on the largest batch, and on that alone.
        (many_channels(), Precision::F32),
    ] {
        let state = random::state(&plan, 5);
        let (pixels, labels) = random::batch(&plan, CAPACITY, 6);
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
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

fn count(calls: &[Call], kind: Kind) -> usize {
    calls.iter().filter(|call| call.kind == kind).count()
}

#[test]
fn a_call_is_one_graph_of_the_way_forward_alone() {
    let _alone = alone();
    let Some((emulator, device)) = device_that_is_emulated() else {
        return;
    };
    let plan = Bc::PLAN;
    let state = random::state(&plan, 1);
    let mut frozen = None;
    let made = emulator.calls(|| {
        frozen = Some(on_device(&device, &plan, &state, Precision::F32));
    });
    assert_eq!(count(&made, Kind::Capture), 1);
    // Each kernel of the graph has been launched, and so loaded, before it is recorded.
    let recorded = made.iter().position(|call| call.kind == Kind::Capture);
    let (before, after) = made.split_at(recorded.expect("a graph"));
    for call in after.iter().filter(|call| call.captured) {
        assert!(
            before.iter().any(|own| own.kernel == call.kernel),
            "{call:?}"
        );
    }
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
    // the head: its pool and the classifier. Then the maps of each block, and the last ones again.
    let blocks = plan.blocks().len();
    let expected = 1 + 1 + 2 * layers + (blocks - 1) + 2 + blocks + 1;
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
            ..own_options(precision)
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
        ..own_options(Precision::F32)
    };
    assert_eq!(cuda::Frozen::bytes_of(&plan, &none), None);
}

#[test]
fn what_it_gives_is_planned_too() {
    let plan = DenseNet121::PLAN;
    let bytes = |outputs: Outputs| {
        let options = cuda::FrozenOptions {
            outputs,
            ..cuda::FrozenOptions::for_batch(8)
        };
        cuda::Frozen::bytes_of(&plan, &options).unwrap()
    };
    let blocks = plan.blocks().iter();
    let blocks: usize = blocks.map(|block| block.output() * block.pixels()).sum();
    let pixels = plan.head().pixels();
    for (outputs, each) in [
        (
            Outputs {
                class_maps: 3,
                ..Outputs::default()
            },
            3 * (1 + pixels),
        ),
        (
            Outputs {
                last_maps: true,
                ..Outputs::default()
            },
            plan.features() * pixels,
        ),
        (
            Outputs {
                block_maps: true,
                ..Outputs::default()
            },
            blocks,
        ),
    ] {
        let more = bytes(outputs) - bytes(Outputs::default());
        // Each buffer is aligned.
        assert!(
            more.abs_diff(8 * 4 * each as u64) < 2048,
            "{outputs:?}: {more}"
        );
    }
}

/// Bytes by the plan alone: weights, BN, and for a batch the raw and the normalised images, the
/// stem's maps, two blocks' maps, one layer's bottleneck maps, pooled values, and sums of shared products.
fn planned(plan: &Plan, batch: usize, precision: Precision) -> f64 {
    // Blocks that share a 1x1 product leave each other f32: where there is room for several on 132 multiprocessors,
    // each has some of the 64 channels, and at least 8 of these are saved.
    let shared = |block: &Block| {
        let (pixels, maps) = (batch * block.pixels(), block.bottleneck?);
        let room = (132 / pixels.div_ceil(64)).clamp(1, 8);
        let parts = block.iter().filter_map(|layer| {
            let pieces = layer.input.div_ceil(64);
            let own = pieces.div_ceil(room);
            (pieces - own >= 8).then(|| pieces.div_ceil(own))
        });
        parts.max().map(|parts| parts * pixels * maps)
    };
    let shared = plan.blocks().iter().filter_map(shared).max().unwrap_or(0);
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
    (precision.bytes() * weights + 4 * (alone + affine + shared) + batch * image) as f64
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
            ..own_options(Precision::F32)
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
    let image = pixels.len() / (CAPACITY + 1);
    let one = Pixels::Nchw(&pixels[..image]);
    let error = frozen
        .infer_with(one, 1, MapsOf::Classes(&[10]))
        .unwrap_err();
    let is_of_no_class = matches!(
        error,
        ExecutorError::ClassOfMap {
            found: 10,
            classes: 10
        }
    );
    assert!(is_of_no_class, "{error}");
    let error = frozen.infer_with(one, 1, MapsOf::Top(3)).unwrap_err();
    assert!(
        matches!(error, ExecutorError::ClassMaps { found: 3, kept: 2 }),
        "{error}"
    );
    // A refused call does not affect the next ones.
    assert!(frozen.infer(one, 1).is_ok());
}

#[test]
fn too_little_memory_says_what_there_is_and_a_failed_launch_is_an_error() {
    let _alone = alone();
    let Some((emulator, device)) = device_that_is_emulated() else {
        return;
    };
    let plan = Bc::PLAN;
    let state = random::state(&plan, 1);
    // Too little for the network, and enough for it but not for the parameters that it is made from.
    let own = cuda::Frozen::bytes_of(&plan, &own_options(Precision::F32)).unwrap() as usize;
    for room in [own / 2, own] {
        emulator.set_memory(emulator.memory_used() + room);
        let options = own_options(Precision::F32);
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

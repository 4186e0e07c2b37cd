//! The CUDA executor computes the same as the CPU executor, for networks of every kind: outputs,
//! gradients, running statistics, and weights after three steps. On an emulated device (the kernels
//! and the code that launches them are unmodified), where memory starts as NaN, each buffer ends at
//! a page without access, and blocks and warps run in a shuffled order.

use densenet_runtime::cpu;
use densenet_runtime::cuda::{self, Cache, CudaDevice, Placement};
use densenet_runtime::plan::{Frozen, Plan, Precision, Recompute};
use densenet_runtime::weights::State;
use densenet_runtime::{
    AdamW, Arena, Batch, Descent, Executor, Group, Network, Outcome, Pixels, Sgd, Step,
};
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::emulated::{alone, device, device_that_is_emulated, on_cuda, options};
use densenet_tests::executor::{evaluate, load, logits, on_cpu, read, state};
use densenet_tests::frozen_parts::groups;
use densenet_tests::networks::{Bc, Case, Compressed, ImageNetBc, many_channels, many_maps};
use densenet_tests::{each_network, random};

/// Trains both for three steps, of a full, a partial and an accumulated batch, and compares
/// everything visible at every step.
fn compare(plan: &Plan, name: &str, options: cuda::CudaOptions, seed: u64, tolerance: f64) {
    let sgd = Sgd {
        learning_rate: 0.02,
        ..Sgd::default()
    };
    compare_with(plan, name, options, seed, tolerance, |_| sgd.into());
}

/// The same with a descent for each step.
fn compare_with(
    plan: &Plan,
    name: &str,
    options: cuda::CudaOptions,
    seed: u64,
    tolerance: f64,
    descent: impl Fn(u64) -> Descent,
) {
    let all = |_| vec![Group::all(plan.parameter_count())];
    compare_in_groups(plan, name, options, seed, tolerance, descent, all);
}

/// The same with a descent and groups of parameters for each step.
fn compare_in_groups(
    plan: &Plan,
    name: &str,
    options: cuda::CudaOptions,
    seed: u64,
    tolerance: f64,
    descent: impl Fn(u64) -> Descent,
    groups: impl Fn(u64) -> Vec<Group>,
) {
    let (emulator, device) = device();
    let capacity = options.batch;
    let kept = cpu::CpuOptions {
        recompute: options.recompute,
        second_moments: options.second_moments,
        average: options.average,
        frozen: options.frozen,
        threads: 1,
        ..cpu::CpuOptions::for_batch(capacity)
    };
    let mut cpu = cpu::CpuExecutor::new(plan.clone(), kept).unwrap();
    let mut cuda = on_cuda(&device, plan, options);
    let start = random::state(plan, seed);
    load(&mut cpu, &start);
    load(&mut cuda, &start);
    let mut compare = Comparison::within(tolerance);
    // The first step is launched, the second one recorded, and the third one replayed.
    for (number, images) in [capacity - 1, capacity, capacity].into_iter().enumerate() {
        emulator.seed(number as u64);
        let own = groups(1 + number as u64);
        let executors: [&mut dyn Executor; 2] = [&mut cpu, &mut cuda];
        for executor in executors {
            executor.set_groups(&own).unwrap();
        }
        let (pixels, labels) = random::batch(plan, images, 10 + number as u64);
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
        let step = Step {
            label_smoothing: 0.1,
            scale: 0.5,
            accumulate: number == 2 && own == groups(2),
            seed: 7 + number as u64,
        };
        let descent = descent(1 + number as u64);
        let expected = cpu.differentiate(batch, step).unwrap();
        cpu.descend(descent).unwrap();
        // The same in one, as it is recorded.
        let found = cuda.step(batch, step, descent);
        let found = found.and_then(|pending| cuda.finish(pending));
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        let right = |outcome: &Outcome| (outcome.top1, outcome.top5);
        assert_eq!(right(&found), right(&expected), "images that are right");
        compare.add(
            format!("loss {number}"),
            &[found.loss as f32],
            &[expected.loss as f32],
        );
        compare.add(
            format!("logits {number}"),
            &logits(&cuda, images),
            &logits(&cpu, images),
        );
        let gradients = [&cuda as &dyn Executor, &cpu].map(|executor| {
            let mut gradients = vec![f32::NAN; plan.parameter_count()];
            executor.read(Arena::Gradients, &mut gradients).unwrap();
            gradients
        });
        let what = format!("gradient {number} of");
        compare.add_parameters(&what, plan, &gradients[0], &gradients[1]);
    }
    compare.add_state("after training", plan, &state(&cuda), &state(&cpu));
    if kept.second_moments {
        let [found, expected] =
            [&cuda as &dyn Executor, &cpu].map(|executor| read(executor, Arena::SecondMoments));
        compare.add_parameters("second moment of", plan, &found, &expected);
    }
    if kept.average {
        let [found, expected] = [&cuda as &dyn Executor, &cpu].map(|executor| State {
            parameters: read(executor, Arena::Average),
            running: read(executor, Arena::AverageRunning),
        });
        compare.add_state("average", plan, &found, &expected);
    }
    let before = [&cuda as &dyn Executor, &cpu].map(|own| read(own, Arena::Gradients));
    // Three times, so that a recorded graph is replayed.
    for number in 0..3 {
        let (pixels, labels) = random::batch(plan, capacity, 90 + number);
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
        cpu.update_statistics(batch).unwrap();
        let moved = cuda.update_statistics(batch);
        moved.unwrap_or_else(|error| panic!("{error}"));
    }
    compare.add_state("after moving statistics", plan, &state(&cuda), &state(&cpu));
    let after = [&cuda as &dyn Executor, &cpu].map(|own| read(own, Arena::Gradients));
    assert!(before == after, "moving statistics leaves the gradients");
    let (pixels, labels) = random::batch(plan, capacity - 1, 99);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    compare.add(
        "evaluation",
        &evaluate(&mut cuda, batch),
        &evaluate(&mut cpu, batch),
    );
    compare.assert(name);
}

fn trains_alike<N: Case>() {
    let _alone = alone();
    // Where the last maps are one pixel, a channel's statistics are of as many values as there
    // are images, and rounding grows with every step if they are few. From this state the CPU
    // executor agrees with itself at other instruction sets to 2e-5; from most, to 1e-4 or worse.
    let last = N::PLAN.blocks().last().map_or(0, |block| block.pixels());
    let (images, seed) = if last == 1 { (12, 7) } else { (4, 1) };
    compare(&N::PLAN, N::GOLDEN, options(images), seed, TOLERANCE);
}

each_network!(trains_alike);

#[test]
fn maps_of_1x1_products_that_blocks_share_are_alike() {
    let _alone = alone();
    let plan = many_channels();
    compare(&plan, "many channels", options(4), 1, TOLERANCE);
}

#[test]
fn maps_that_a_transition_pools_before_its_product_are_alike() {
    let _alone = alone();
    compare(&many_maps(), "many maps", options(4), 1, TOLERANCE);
}

#[test]
fn adamw_clips_and_averages_alike() {
    let _alone = alone();
    let options = cuda::CudaOptions {
        second_moments: true,
        average: true,
        ..options(4)
    };
    for plan in [Bc::PLAN, Compressed::PLAN] {
        compare_with(&plan, "AdamW", options.clone(), 1, TOLERANCE, clipped);
    }
}

/// A step of AdamW with clipped gradients and averages.
fn clipped(step: u64) -> Descent {
    let adamw = AdamW {
        learning_rate: 0.01,
        // Where a gradient is nearly zero, its rounding would be most of a step.
        epsilon: 1e-2,
        step,
        ..AdamW::default()
    };
    Descent {
        clip: Some(0.5),
        ema: Some(0.8),
        ..adamw.into()
    }
}

#[test]
fn a_step_that_was_recorded_descends_as_it_is_asked_to() {
    let _alone = alone();
    let options = cuda::CudaOptions {
        second_moments: true,
        average: true,
        ..options(4)
    };
    // The second and the third step are recorded, since they descend in different ways.
    compare_with(
        &Bc::PLAN,
        "kinds",
        options,
        1,
        TOLERANCE,
        |step| match step {
            1 => Descent {
                clip: Some(0.5),
                ..Sgd::default().into()
            },
            2 => Sgd::default().into(),
            _ => Descent {
                ema: Some(0.5),
                ..Sgd::default().into()
            },
        },
    );
}

#[test]
fn frozen_stages_are_alike() {
    let _alone = alone();
    let plan = Bc::PLAN.with_dropout(0.25).unwrap();
    for count in 1..plan.stages().len() {
        let options = cuda::CudaOptions {
            frozen: Frozen::first(count),
            recompute: match count % 2 {
                0 => Recompute::Nothing,
                _ => Recompute::Bottlenecks,
            },
            ..options(3)
        };
        let name = format!("{count} stages frozen");
        compare(&plan, &name, options, 1, TOLERANCE);
    }
}

/// Trains with parts frozen; with AdamW, also clips and averages.
fn compare_frozen(parts: &[&str], plan: &Plan, recompute: Recompute, adamw: bool) {
    let options = cuda::CudaOptions {
        recompute,
        second_moments: adamw,
        average: adamw,
        ..options(3)
    };
    let descent = |step| match adamw {
        false => Sgd::default().into(),
        true => clipped(step),
    };
    let name = format!("{parts:?} frozen");
    let of_step = |_| groups(plan, parts);
    compare_in_groups(plan, &name, options, 1, TOLERANCE, descent, of_step);
}

#[test]
fn frozen_layers_transitions_and_blocks_are_alike() {
    let _alone = alone();
    let plan = Bc::PLAN.with_dropout(0.25).unwrap();
    let parts = [
        "features.denseblock1.denselayer2",
        "features.denseblock2.denselayer1.norm2",
        "features.transition2",
        "features.norm5",
    ];
    compare_frozen(&parts, &plan, Recompute::Bottlenecks, false);
    let parts = [
        "features.conv0",
        "features.denseblock1.denselayer1",
        "features.denseblock2",
        "classifier.weight",
    ];
    compare_frozen(&parts, &plan, Recompute::Nothing, true);
}

#[test]
fn a_step_that_was_recorded_freezes_what_it_is_asked_to() {
    let _alone = alone();
    let plan = Bc::PLAN;
    let descent = |_| Sgd::default().into();
    // The second step is recorded.
    let of_step = |step| match step {
        1 | 2 => groups(&plan, &["features.denseblock1.denselayer1"]),
        _ => groups(&plan, &["features.denseblock2", "features.norm5"]),
    };
    let name = "other parts frozen";
    compare_in_groups(&plan, name, options(3), 1, TOLERANCE, descent, of_step);
}

#[test]
fn groups_freeze_the_first_stages_as_options_do() {
    let _alone = alone();
    let (_, device) = device();
    let plan = Bc::PLAN.with_dropout(0.25).unwrap();
    let parts = [
        "features.conv0",
        "features.denseblock1",
        "features.transition1",
    ];
    let first = Frozen::first(parts.len());
    let of = |frozen: Frozen, groups: &[Group]| {
        let options = cuda::CudaOptions {
            frozen,
            ..options(3)
        };
        let mut executor = on_cuda(&device, &plan, options);
        load(&mut executor, &random::state(&plan, 1));
        executor.set_groups(groups).unwrap();
        for seed in 0..3 {
            let (pixels, labels) = random::batch(&plan, 3, seed);
            let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
            let step = Step {
                seed,
                ..Step::default()
            };
            let pending = executor.step(batch, step, Sgd::default().into()).unwrap();
            executor.finish(pending).unwrap();
        }
        (state(&executor), read(&executor, Arena::Gradients))
    };
    let all = [Group::all(plan.parameter_count())];
    let (expected, gradients) = of(first, &all);
    let (found, own) = of(Frozen::default(), &groups(&plan, &parts));
    let mut compare = Comparison::within(TOLERANCE);
    compare.add_state("after training", &plan, &found, &expected);
    compare.add_parameters("gradient of", &plan, &own, &gradients);
    compare.assert("the first stages");
    // Not a bit of what is frozen has moved.
    let start = random::state(&plan, 1);
    let [trained, moving] = plan.trainable(first);
    assert!(found.parameters[..trained.start] == start.parameters[..trained.start]);
    assert!(found.running[..moving.start] == start.running[..moving.start]);
}

#[test]
fn dropout_has_the_same_masks() {
    let _alone = alone();
    for plan in [Bc::PLAN, Compressed::PLAN] {
        let plan = plan.with_dropout(0.25).unwrap();
        compare(&plan, "dropout", options(3), 1, TOLERANCE);
    }
}

#[test]
fn recomputed_bottlenecks_are_the_same() {
    let _alone = alone();
    let options = cuda::CudaOptions {
        recompute: Recompute::Bottlenecks,
        ..options(3)
    };
    compare(&Bc::PLAN, "recomputed", options, 1, TOLERANCE);
}

#[test]
fn one_allocation_serves_as_well_as_many() {
    let _alone = alone();
    let options = cuda::CudaOptions {
        placement: Placement::Together,
        ..options(3)
    };
    compare(&Bc::PLAN, "together", options, 1, TOLERANCE);
}

/// Gradients and state of some steps, in bits: of steps in one where they are recorded, and else in
/// two.
fn bits(plan: &Plan, options: cuda::CudaOptions, seed: u64) -> Vec<u32> {
    let (emulator, device) = device();
    emulator.seed(seed);
    let (capacity, graphs) = (options.batch, options.graphs);
    let mut executor = on_cuda(&device, plan, options);
    load(&mut executor, &random::state(plan, 1));
    let (pixels, labels) = random::batch(plan, capacity, 2);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    for seed in 0..3 {
        let step = Step {
            seed,
            ..Step::default()
        };
        if graphs {
            let pending = executor.step(batch, step, Sgd::default().into()).unwrap();
            executor.finish(pending).unwrap();
        } else {
            executor.differentiate(batch, step).unwrap();
            executor.descend(Sgd::default().into()).unwrap();
        }
    }
    let after = state(&executor);
    let values = [
        read(&executor, Arena::Gradients),
        after.parameters,
        after.running,
    ];
    values.into_iter().flatten().map(f32::to_bits).collect()
}

#[test]
fn a_replayed_graph_equals_eager_launches_bit_for_bit_in_any_order_of_blocks() {
    let _alone = alone();
    let eager = cuda::CudaOptions {
        graphs: false,
        ..options(3)
    };
    let expected = bits(&ImageNetBc::PLAN, options(3), 1);
    assert!(expected == bits(&ImageNetBc::PLAN, eager, 2));
}

#[test]
fn bytes_of_images_are_normalised_alike() {
    let _alone = alone();
    let (_, device) = device();
    let plan = Bc::PLAN;
    let stem = plan.stem();
    let count = 2 * stem.channels * stem.height * stem.width;
    let bytes: Vec<u8> = (0..count).map(|i| (i * 89 % 251) as u8).collect();
    let batch = Batch::of_classes(
        Pixels::Nhwc {
            bytes: &bytes,
            mean: &[0.4, 0.5, 0.6],
            std: &[0.2, 0.3, 0.25],
        },
        &[3, 8],
    );
    let mut cpu = on_cpu(&plan, 2, Recompute::Nothing, Precision::F32);
    let mut cuda = on_cuda(&device, &plan, options(2));
    load(&mut cpu, &random::state(&plan, 4));
    load(&mut cuda, &random::state(&plan, 4));
    let mut compare = Comparison::within(TOLERANCE);
    compare.add(
        "logits",
        &evaluate(&mut cuda, batch),
        &evaluate(&mut cpu, batch),
    );
    compare.assert("bytes");
}

/// On both devices, and as the network's own layout.
#[test]
fn floats_of_images_are_normalised_alike() {
    let _alone = alone();
    let (_, device) = device();
    let plan = Bc::PLAN;
    let stem = plan.stem();
    let (channels, area) = (stem.channels, stem.height * stem.width);
    let count = 2 * channels * area;
    let values: Vec<f32> = (0..count).map(|i| (i * 89 % 251) as f32 / 250.0).collect();
    let (mean, std) = ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]);
    let floats = Pixels::NhwcFloats {
        values: &values,
        mean: &mean,
        std: &std,
    };
    let planes: Vec<f32> = (0..count)
        .map(|i| {
            let (image, c, p) = (i / (channels * area), i / area % channels, i % area);
            (values[(image * area + p) * channels + c] - mean[c]) / std[c]
        })
        .collect();
    let mut cpu = on_cpu(&plan, 2, Recompute::Nothing, Precision::F32);
    let mut cuda = on_cuda(&device, &plan, options(2));
    load(&mut cpu, &random::state(&plan, 4));
    load(&mut cuda, &random::state(&plan, 4));
    let expected = evaluate(&mut cpu, Batch::of_classes(Pixels::Nchw(&planes), &[3, 8]));
    let batch = Batch::of_classes(floats, &[3, 8]);
    let mut compare = Comparison::within(TOLERANCE);
    compare.add("logits on CUDA", &evaluate(&mut cuda, batch), &expected);
    compare.add("logits on the CPU", &evaluate(&mut cpu, batch), &expected);
    compare.assert("floats");
}

#[test]
fn too_little_memory_is_an_error_that_says_how_much() {
    let _alone = alone();
    let Some((emulator, device)) = device_that_is_emulated() else {
        return;
    };
    emulator.set_memory(emulator.memory_used() + 100_000);
    let refused = cuda::CudaExecutor::new(&device, Bc::PLAN, options(8));
    emulator.set_memory(1 << 30);
    let error = refused.err().expect("an error").to_string();
    assert!(
        error.contains("no memory for") && error.contains("are free"),
        "{error}"
    );
}

#[test]
fn a_failing_launch_is_an_error_and_what_was_read_before_is_whole() {
    let _alone = alone();
    let Some((emulator, device)) = device_that_is_emulated() else {
        return;
    };
    let plan = Bc::PLAN;
    let mut executor = on_cuda(&device, &plan, options(2));
    let start = random::state(&plan, 1);
    load(&mut executor, &start);
    let before = state(&executor);
    let (pixels, labels) = random::batch(&plan, 2, 2);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    emulator.fail_launch(5);
    let failed = executor.differentiate(batch, Step::default());
    let mut into = vec![0.0; plan.parameter_count()];
    let read = executor.read(Arena::Parameters, &mut into);
    emulator.recover();
    let error = failed.expect_err("an error").to_string();
    assert!(error.contains("launch failure"), "{error}");
    assert!(read.is_err(), "a broken device gives nothing out");
    assert_eq!(before.parameters, start.parameters);
}

#[test]
fn compiled_kernels_are_kept_and_a_damaged_one_is_compiled_again() {
    let _alone = alone();
    let (_, device) = device();
    let folder = tempfile::tempdir().unwrap();
    let make = || {
        let options = cuda::CudaOptions {
            cache: Cache::Folder(folder.path().to_path_buf()),
            ..options(2)
        };
        on_cuda(&device, &Bc::PLAN, options);
        let entry = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.unwrap().path();
            (
                path.clone(),
                std::fs::metadata(path).unwrap().modified().unwrap(),
            )
        };
        let mut entries: Vec<_> = folder.path().read_dir().unwrap().map(entry).collect();
        entries.sort();
        entries
    };
    let first = make();
    assert!(first.len() > 5, "{first:?}");
    assert_eq!(make(), first, "nothing is compiled twice");
    let damaged = &first[0].0;
    let whole = std::fs::read(damaged).unwrap();
    std::fs::write(damaged, &whole[..whole.len() / 2]).unwrap();
    std::fs::write(&first[1].0, b"").unwrap();
    let again = make();
    let names = |entries: &[(std::path::PathBuf, _)]| -> Vec<_> {
        entries.iter().map(|(path, _)| path.clone()).collect()
    };
    assert_eq!(names(&again), names(&first));
    assert_eq!(again[2..], first[2..], "the others stay");
    let mended = std::fs::metadata(damaged).unwrap().len();
    assert_eq!(mended, whole.len() as u64);
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let _alone = alone();
    if device_that_is_emulated().is_none() {
        return;
    }
    let error = CudaDevice::open(3).err().expect("an error").to_string();
    assert!(
        error.contains("no CUDA device 3: the driver sees 1"),
        "{error}"
    );
}

//! The frozen form against the executor, on small networks of every kind.

mod outputs;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Frozen;
use crate::Outputs;
use crate::cpu::{CpuExecutor, CpuOptions, FrozenOptions, Level, Precision};
use crate::executor::{Arena, Batch, Executor, ExecutorError, Pixels, Sgd, Step};
use crate::plan::{BlockSpec, Plan, Ratio, Role, Spec, StemKind};

const BATCH: usize = 3;

fn plan(
    blocks: &[(usize, usize)],
    theta: Ratio,
    bottleneck: Option<usize>,
    (stem, init): (StemKind, usize),
    input: [usize; 3],
) -> Plan {
    let blocks = blocks.iter();
    Spec {
        blocks: blocks
            .map(|&(layers, growth)| BlockSpec { layers, growth })
            .collect(),
        theta,
        bottleneck,
        stem,
        init,
        input,
        classes: 7,
        dropout: 0.0,
    }
    .plan()
    .unwrap()
}

/// Plain, B, C and BC, both stems, odd sizes, channels that are not a multiple of a vector.
fn networks() -> Vec<(&'static str, Plan)> {
    let half = Ratio::new(1, 2);
    let third = Ratio::new(1, 3);
    let (cifar, imagenet) = (StemKind::Cifar, StemKind::ImageNet);
    vec![
        (
            "plain",
            plan(&[(3, 5), (2, 5)], Ratio::ONE, None, (cifar, 7), [3, 9, 12]),
        ),
        (
            "bottlenecks",
            plan(
                &[(2, 12), (3, 12)],
                Ratio::ONE,
                Some(4),
                (cifar, 16),
                [1, 8, 8],
            ),
        ),
        (
            "compressed",
            plan(&[(2, 6), (2, 6)], third, None, (cifar, 11), [3, 13, 7]),
        ),
        (
            "both",
            plan(
                &[(2, 8), (3, 20), (2, 33)],
                half,
                Some(3),
                (cifar, 10),
                [4, 17, 15],
            ),
        ),
        (
            "both, imagenet",
            plan(
                &[(2, 16), (2, 16)],
                half,
                Some(4),
                (imagenet, 32),
                [3, 45, 38],
            ),
        ),
        (
            "plain, imagenet",
            plan(
                &[(2, 3), (1, 40)],
                Ratio::ONE,
                None,
                (imagenet, 9),
                [2, 32, 51],
            ),
        ),
        (
            "many channels",
            plan(&[(2, 32), (1, 16)], half, Some(4), (cifar, 450), [3, 4, 6]),
        ),
    ]
}

fn random(rng: &mut StdRng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.gen_range(-1.5..1.5)).collect()
}

fn images(plan: &Plan, count: usize, seed: u64) -> Vec<f32> {
    let stem = plan.stem();
    let len = count * stem.channels * stem.height * stem.width;
    random(&mut StdRng::seed_from_u64(seed), len)
}

/// A network that has seen a few steps.
fn trained(plan: &Plan, level: Level) -> CpuExecutor {
    let options = CpuOptions {
        threads: 2,
        level,
        ..CpuOptions::for_batch(BATCH)
    };
    let mut executor = CpuExecutor::new(plan.clone(), options).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut parameters = vec![0.0; plan.parameter_count()];
    let mut running = vec![0.0; plan.running_count()];
    for parameter in plan.parameters() {
        let fan: usize = parameter.shape[1..].iter().product();
        let bound = (6.0 / fan as f32).sqrt();
        let into = if parameter.role.is_trainable() {
            &mut parameters[parameter.range()]
        } else {
            &mut running[parameter.range()]
        };
        into.fill_with(|| match parameter.role {
            Role::RunningMean => 0.0,
            Role::RunningVar => 1.0,
            Role::NormScale => rng.gen_range(0.5..1.5),
            Role::NormBias | Role::LinearBias => rng.gen_range(-0.5..0.5),
            Role::ConvWeight | Role::LinearWeight => rng.gen_range(-bound..bound),
        });
    }
    executor.write(Arena::Parameters, &parameters).unwrap();
    executor.write(Arena::Running, &running).unwrap();
    let labels: Vec<u32> = (0..BATCH as u32).collect();
    for step in 0..3 {
        let pixels = images(plan, BATCH, step);
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
        executor.differentiate(batch, Step::default()).unwrap();
        let sgd = Sgd {
            learning_rate: 0.02,
            ..Sgd::default()
        };
        executor.descend(sgd.into()).unwrap();
    }
    executor
}

fn frozen(executor: &CpuExecutor, batch: usize, threads: usize, level: Level) -> Frozen {
    let options = FrozenOptions {
        threads,
        level,
        ..FrozenOptions::for_batch(batch)
    };
    frozen_with(executor, options)
}

fn frozen_with(executor: &CpuExecutor, options: FrozenOptions) -> Frozen {
    let plan = executor.plan();
    let mut parameters = vec![0.0; plan.parameter_count()];
    let mut running = vec![0.0; plan.running_count()];
    executor.read(Arena::Parameters, &mut parameters).unwrap();
    executor.read(Arena::Running, &mut running).unwrap();
    Frozen::new(plan, &parameters, &running, options).unwrap()
}

/// The executor's outputs for some images.
fn evaluated(executor: &mut CpuExecutor, pixels: Pixels<'_>, count: usize) -> Vec<f32> {
    let labels = vec![0; count];
    let batch = Batch::of_classes(pixels, &labels);
    executor.evaluate(batch).unwrap();
    let mut logits = vec![0.0; count * executor.plan().classes()];
    executor.logits(&mut logits).unwrap();
    logits
}

/// Fails unless the values agree to 1e-4 of the largest.
fn assert_agree(what: &str, found: &[f32], expected: &[f32]) {
    assert_within(1e-4, what, found, expected);
}

fn assert_within(tolerance: f32, what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    assert!(
        largest > 1e-3 && largest.is_finite(),
        "{what}: logits of {largest} prove nothing"
    );
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(
            error <= tolerance * largest,
            "{what}: logit {index} is {found}, the executor says {expected}"
        );
    }
}

fn levels() -> impl Iterator<Item = Level> {
    let all = [Level::Baseline, Level::Avx2, Level::Avx512];
    all.into_iter().filter(|level| level.at_most() == *level)
}

#[test]
fn agrees_with_the_executor_for_every_kind_of_network_and_level() {
    for (name, plan) in networks() {
        let mut executor = trained(&plan, Level::detect());
        let pixels = images(&plan, BATCH, 9);
        let expected = evaluated(&mut executor, Pixels::Nchw(&pixels), BATCH);
        for level in levels() {
            for threads in [1, 2, 3] {
                let mut frozen = frozen(&executor, BATCH, threads, level);
                let found = frozen.infer(Pixels::Nchw(&pixels), BATCH).unwrap();
                assert_agree(
                    &format!("{name}, {level:?}, {threads} threads"),
                    found,
                    &expected,
                );
            }
        }
    }
}

#[test]
fn in_bfloat16_agrees_but_for_rounding_and_levels_agree() {
    for (name, plan) in networks() {
        let mut executor = trained(&plan, Level::detect());
        let pixels = images(&plan, BATCH, 9);
        let expected = evaluated(&mut executor, Pixels::Nchw(&pixels), BATCH);
        let mut others: Option<Vec<f32>> = None;
        for level in levels().chain([Level::detect()]) {
            let options = FrozenOptions {
                threads: 2,
                level,
                precision: Precision::Bf16,
                ..FrozenOptions::for_batch(BATCH)
            };
            let mut frozen = frozen_with(&executor, options);
            let found = frozen.infer(Pixels::Nchw(&pixels), BATCH).unwrap();
            let what = format!("{name}, {level:?}");
            assert_within(2e-2, &what, found, &expected);
            assert_ne!(found, expected, "{what}: nothing was rounded");
            // They round the same values, except for sums that differ in the last digit.
            let others = others.get_or_insert_with(|| found.to_vec());
            assert_within(5e-3, &what, found, others);
        }
    }
}

#[test]
fn fewer_images_than_it_was_made_for_give_the_same_logits() {
    for (name, plan) in networks() {
        let executor = trained(&plan, Level::detect());
        let mut frozen = frozen(&executor, BATCH, 2, Level::detect());
        let pixels = images(&plan, BATCH, 9);
        let all = frozen.infer(Pixels::Nchw(&pixels), BATCH).unwrap().to_vec();
        for count in 1..BATCH {
            let some = &pixels[..count * pixels.len() / BATCH];
            let found = frozen.infer(Pixels::Nchw(some), count).unwrap();
            assert_agree(name, found, &all[..count * plan.classes()]);
        }
    }
}

#[test]
fn groups_of_images_give_the_same_logits_as_images_alone() {
    // The groups of this plan's two blocks have several images each, in different numbers: see
    // `frozen::program` of `densenet-cpu`.
    let half = Ratio::new(1, 2);
    let stem = (StemKind::Cifar, 130);
    let plan = plan(&[(1, 32), (1, 8)], half, Some(1), stem, [1, 70, 64]);
    let executor = trained(&plan, Level::detect());
    let mut many = frozen(&executor, 7, 2, Level::detect());
    let mut one = frozen(&executor, 1, 2, Level::detect());
    let pixels = images(&plan, 7, 9);
    let found = many.infer(Pixels::Nchw(&pixels), 7).unwrap();
    for (image, found) in pixels.chunks_exact(70 * 64).zip(found.chunks_exact(7)) {
        let expected = one.infer(Pixels::Nchw(image), 1).unwrap();
        assert_agree("one image", found, expected);
    }
}

#[test]
fn bytes_are_normalised_as_the_executor_does() {
    let (name, plan) = networks().remove(4);
    let mut executor = trained(&plan, Level::detect());
    let mut rng = StdRng::seed_from_u64(3);
    let mut bytes = vec![0u8; BATCH * 3 * plan.stem().height * plan.stem().width];
    rng.fill(&mut bytes[..]);
    let pixels = Pixels::Nhwc {
        bytes: &bytes,
        mean: &[0.4, 0.5, 0.6],
        std: &[0.2, 0.3, 0.25],
    };
    let expected = evaluated(&mut executor, pixels, BATCH);
    let mut frozen = frozen(&executor, BATCH, 2, Level::detect());
    assert_agree(name, frozen.infer(pixels, BATCH).unwrap(), &expected);
    // The same values in floats.
    let values: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect();
    let pixels = Pixels::NhwcFloats {
        values: &values,
        mean: &[0.4, 0.5, 0.6],
        std: &[0.2, 0.3, 0.25],
    };
    assert_agree(name, frozen.infer(pixels, BATCH).unwrap(), &expected);
}

#[test]
fn the_same_images_give_the_same_bits_whatever_came_before() {
    for (name, plan) in networks() {
        let executor = trained(&plan, Level::detect());
        let mut frozen = frozen(&executor, BATCH, 2, Level::detect());
        let pixels = images(&plan, BATCH, 9);
        let first = frozen.infer(Pixels::Nchw(&pixels), BATCH).unwrap().to_vec();
        let poison = vec![f32::NAN; pixels.len()];
        frozen.infer(Pixels::Nchw(&poison), BATCH).unwrap();
        let again = frozen.infer(Pixels::Nchw(&pixels), BATCH).unwrap();
        assert_eq!(again, first, "{name}");
    }
}

#[test]
fn a_nan_in_an_image_reaches_its_logits_and_no_others() {
    for (name, plan) in networks() {
        let executor = trained(&plan, Level::detect());
        let mut frozen = frozen(&executor, 2, 2, Level::detect());
        let mut pixels = images(&plan, 2, 9);
        let middle = plan.stem().height / 2 * plan.stem().width + plan.stem().width / 2;
        pixels[middle] = f32::NAN;
        let logits = frozen.infer(Pixels::Nchw(&pixels), 2).unwrap();
        let (first, second) = logits.split_at(plan.classes());
        assert!(
            first.iter().all(|logit| logit.is_nan()),
            "{name}: {first:?}"
        );
        assert!(
            second.iter().all(|logit| logit.is_finite()),
            "{name}: {second:?}"
        );
    }
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let (_, plan) = networks().remove(0);
    let executor = trained(&plan, Level::detect());
    let mut frozen = frozen(&executor, 2, 1, Level::detect());
    let pixels = images(&plan, 3, 9);
    for count in [0, 3] {
        let error = frozen.infer(Pixels::Nchw(&pixels), count).unwrap_err();
        assert!(
            matches!(error, ExecutorError::BatchSize { found, capacity: 2 } if found == count),
            "{error}"
        );
    }
    let error = frozen.infer(Pixels::Nchw(&pixels[1..]), 2).unwrap_err();
    assert!(
        matches!(error, ExecutorError::Pixels { labels: 2, .. }),
        "{error}"
    );
    let pixels = Pixels::Nhwc {
        bytes: &[0; 3 * 9 * 12],
        mean: &[0.5],
        std: &[0.5; 3],
    };
    let error = frozen.infer(pixels, 1).unwrap_err();
    assert!(
        matches!(error, ExecutorError::Channels { found: 1, .. }),
        "{error}"
    );
}

#[test]
fn the_bytes_of_a_network_are_known_before_it_is_frozen() {
    for (name, plan) in networks() {
        let parameters = vec![0.0; plan.parameter_count()];
        let running = vec![1.0; plan.running_count()];
        for (batch, threads) in [(1, 1), (5, 2)] {
            let planned = [Outputs::default(), Outputs::all(2)].map(|outputs| {
                let options = FrozenOptions {
                    threads,
                    outputs,
                    ..FrozenOptions::for_batch(batch)
                };
                let frozen = Frozen::new(&plan, &parameters, &running, options).unwrap();
                let planned = Frozen::bytes_of(&plan, options).unwrap();
                assert_eq!(planned, frozen.bytes(), "{name}");
                planned
            });
            assert!(planned[0] < planned[1], "{name}: {planned:?}");
        }
        assert_eq!(Frozen::bytes_of(&plan, FrozenOptions::for_batch(0)), None);
    }
}

#[test]
fn numbers_of_another_network_are_refused() {
    let (_, plan) = networks().remove(0);
    let parameters = vec![0.0; plan.parameter_count()];
    let running = vec![0.0; plan.running_count()];
    let new = |batch, parameters: &[f32], running: &[f32]| {
        let options = FrozenOptions::for_batch(batch);
        Frozen::new(&plan, parameters, running, options).err()
    };
    assert!(new(1, &parameters, &running).is_none());
    for (what, error) in [
        ("parameters", new(1, &parameters[1..], &running)),
        ("running statistics", new(1, &parameters, &running[1..])),
    ] {
        let error = error.unwrap();
        assert!(
            matches!(error, ExecutorError::Length { what: found, .. } if found == what),
            "{error}"
        );
    }
    assert!(matches!(
        new(0, &parameters, &running),
        Some(ExecutorError::Capacity { found: 0, .. })
    ));
}

#[test]
fn in_bfloat16_a_nan_reaches_no_later_images() {
    for bottleneck in [None, Some(2)] {
        // Odd channels, and layers of whole vectors: maps of the images before come after the last channel.
        let stem = (StemKind::Cifar, 17);
        let plan = plan(&[(3, 16), (2, 16)], Ratio::ONE, bottleneck, stem, [3, 6, 6]);
        let executor = trained(&plan, Level::detect());
        let options = FrozenOptions {
            threads: 2,
            precision: Precision::Bf16,
            ..FrozenOptions::for_batch(BATCH)
        };
        let mut frozen = frozen_with(&executor, options);
        let pixels = images(&plan, BATCH, 9);
        let mut infer = |pixels: &[f32]| {
            let logits = frozen.infer(Pixels::Nchw(pixels), BATCH);
            logits.unwrap().to_vec()
        };
        let first = infer(&pixels);
        infer(&vec![f32::NAN; pixels.len()]);
        assert_eq!(infer(&pixels), first, "{bottleneck:?}");
    }
}

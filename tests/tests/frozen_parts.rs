//! Parts that are frozen anywhere do what PyTorch's do in eval() with `requires_grad_(False)`, on the
//! CPU with each instruction set.

use densenet_runtime::cpu::{CpuExecutor, CpuOptions, Level, Precision};
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::parallel::{Parallel, Threads};
use densenet_runtime::plan::{BlockSpec, Plan, Ratio, Recompute, Spec, StemKind};
use densenet_runtime::train::{Config, Freeze, Trainer};
use densenet_runtime::{Arena, Batch, Descent, Executor, Network, Pixels, Sgd, Step};
use densenet_tests::compare::{Comparison, TOLERANCE, difference, distance};
use densenet_tests::each_frozen_case;
use densenet_tests::executor::{load, logits, on_cpu, read};
use densenet_tests::frozen_parts::{agree, groups};
use densenet_tests::golden::Golden;
use densenet_tests::networks::{Bc, Case, one_pixel};
use densenet_tests::random;
use densenet_tests::ranks::together;

fn check<N: Case>(case: &str, parts: &[&str]) {
    for (level, threads, recompute) in [
        (Level::Baseline, 1, Recompute::Bottlenecks),
        (Level::Avx2, 3, Recompute::Nothing),
        (Level::Avx512, 2, Recompute::Bottlenecks),
        (Level::Avx512, 1, Recompute::Nothing),
    ] {
        agree::<N>(case, parts, &|plan, batch| {
            let options = CpuOptions {
                threads,
                recompute,
                level,
                second_moments: true,
                ..CpuOptions::for_batch(batch)
            };
            Box::new(CpuExecutor::new(plan.clone(), options).unwrap())
        });
    }
    rounds_only::<N>(case, parts);
}

/// In bfloat16 the same, except for the rounding of operands.
fn rounds_only<N: Case>(case: &str, parts: &[&str]) {
    let plan = &N::PLAN;
    let start = Golden::open(N::GOLDEN, plan).start();
    let golden = Golden::open(&format!("frozen_parts_{}", N::GOLDEN), plan);
    let (images, labels) = (golden.images(), golden.labels());
    let batch = Batch::of_classes(Pixels::Nchw(&images), &labels);
    let pass = |precision, level| {
        let options = CpuOptions {
            threads: 2,
            level,
            precision,
            ..CpuOptions::for_batch(labels.len())
        };
        let mut executor = CpuExecutor::new(plan.clone(), options).unwrap();
        executor.set_groups(&groups(plan, parts)).unwrap();
        load(&mut executor, &start);
        executor.differentiate(batch, Step::default()).unwrap();
        let gradients = read(&executor, Arena::Gradients);
        for group in groups(plan, parts) {
            let still = gradients[group.range].iter().all(|&value| value == 0.0);
            assert!(still || !group.frozen);
        }
        (logits(&executor, labels.len()), gradients)
    };
    let exact = pass(Precision::F32, Level::detect());
    // A value within a rounding of zero may fall on the other side of a ReLU; `bfloat16_follows_f32`
    // has PyTorch's figures.
    let [most, most_gradient] = match N::GOLDEN {
        "imagenet_bc" => [0.08, 0.6],
        _ => [0.02, 0.3],
    };
    for level in [
        Level::Baseline,
        Level::Avx2,
        Level::Avx512,
        Level::Avx512Bf16,
    ] {
        let found = pass(Precision::Bf16, level);
        let off = difference(&found.0, &exact.0);
        assert!(
            off > 1e-6 && off < most,
            "{case}, {level:?}: {off} of the logits"
        );
        let off = distance(&found.1, &exact.1);
        assert!(
            off < most_gradient,
            "{case}, {level:?}: {off} of the gradients"
        );
    }
}

each_frozen_case!(check);

/// A network with frozen BNs computes each image by itself, so the gradients of the parts of a batch
/// average to those of the batch.
#[test]
fn parts_of_a_batch_average_to_the_batch_if_all_norms_are_frozen() {
    // A third is not a binary fraction: an average of equal statistics must be the same all the same.
    const PARTS: usize = 3;
    const IMAGES: usize = 2;
    let plan = &Bc::PLAN;
    let state = random::state(plan, 1);
    let (pixels, labels) = random::batch(plan, PARTS * IMAGES, 1);
    let length = pixels.len() / PARTS;
    let part = |rank: usize| {
        let pixels = Pixels::Nchw(&pixels[rank * length..][..length]);
        Batch::of_classes(pixels, &labels[rank * IMAGES..][..IMAGES])
    };
    let start = |batch| {
        let mut executor = on_cpu(plan, batch, Recompute::Nothing, Precision::F32);
        load(&mut executor, &state);
        executor.set_groups(&groups(plan, &["norms"])).unwrap();
        executor
    };
    let step = |executor: &mut dyn Executor| {
        let descent = Descent {
            clip: Some(0.5),
            ..Sgd::default().into()
        };
        executor.descend(descent).unwrap();
        read(executor, Arena::Parameters)
    };

    let mut whole = start(PARTS * IMAGES);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    whole.differentiate(batch, Step::default()).unwrap();
    let expected = step(&mut whole);

    let mut accumulated = start(IMAGES);
    for rank in 0..PARTS {
        let own = Step {
            scale: 1.0 / PARTS as f32,
            accumulate: rank > 0,
            ..Step::default()
        };
        accumulated.differentiate(part(rank), own).unwrap();
    }
    let mut compare = Comparison::within(TOLERANCE);
    compare.add("accumulated", &step(&mut accumulated), &expected);
    let found = together(Threads::group(PARTS), |collective, rank| {
        let mut ranks = Parallel::new(Box::new(start(IMAGES)), Box::new(collective));
        ranks.differentiate(part(rank), Step::default()).unwrap();
        (step(&mut ranks), read(&ranks, Arena::Running))
    });
    for (parameters, running) in found {
        compare.add("of ranks", &parameters, &expected);
        assert_eq!(running, state.running);
    }
    compare.assert("frozen norms");
}

fn with_dropout(dropout: f64) -> Plan {
    let block = BlockSpec {
        layers: 2,
        growth: 4,
    };
    let spec = Spec {
        blocks: vec![block; 2],
        theta: Ratio::new(1, 2),
        bottleneck: Some(2),
        stem: StemKind::Cifar,
        init: 6,
        input: [3, 8, 8],
        classes: 4,
        dropout,
    };
    spec.plan().unwrap()
}

#[test]
fn no_dropout_follows_a_frozen_convolution() {
    let convolutions: Vec<String> = with_dropout(0.0)
        .parameters()
        .into_iter()
        .map(|tensor| tensor.torchvision)
        .filter(|name| name.contains("conv") && !name.contains("conv0"))
        .collect();
    let all: Vec<&str> = convolutions.iter().map(String::as_str).collect();
    let pass = |dropout, recompute, parts: &[&str]| {
        let plan = with_dropout(dropout);
        let mut executor = on_cpu(&plan, 3, recompute, Precision::F32);
        load(&mut executor, &random::state(&plan, 2));
        executor.set_groups(&groups(&plan, parts)).unwrap();
        let (pixels, labels) = random::batch(&plan, 3, 2);
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
        executor.differentiate(batch, Step::default()).unwrap();
        (logits(&executor, 3), read(&executor, Arena::Gradients))
    };
    for recompute in [Recompute::Nothing, Recompute::Bottlenecks] {
        let without = pass(0.0, recompute, &all);
        assert!(pass(0.3, recompute, &all) == without);
        // Each of them has dropout if it trains.
        for one in &all {
            let others: Vec<&str> = all.iter().copied().filter(|own| own != one).collect();
            let (found, _) = pass(0.3, recompute, &others);
            assert_ne!(found, without.0, "{one}");
        }
    }
}

#[test]
fn one_image_of_one_pixel_trains_if_its_norms_are_frozen() {
    let plan = &one_pixel();
    let mut executor = on_cpu(plan, 1, Recompute::Nothing, Precision::F32);
    load(&mut executor, &random::state(plan, 1));
    let (pixels, labels) = random::batch(plan, 1, 3);
    let one = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    // Some of them are not enough.
    for parts in [&[][..], &["features.denseblock2.denselayer1.norm1"]] {
        executor.set_groups(&groups(plan, parts)).unwrap();
        let error = executor.differentiate(one, Step::default()).unwrap_err();
        assert!(error.to_string().contains("1x1 pixels"), "{error}");
    }
    executor.set_groups(&groups(plan, &["norms"])).unwrap();
    let outcome = executor.differentiate(one, Step::default()).unwrap();
    assert!(outcome.loss.is_finite());
    let gradients = read(&executor, Arena::Gradients);
    assert!(gradients.iter().any(|&value| value != 0.0));
}

#[test]
fn what_becomes_frozen_has_no_gradients_at_once() {
    let plan = &Bc::PLAN;
    let mut executor = on_cpu(plan, 2, Recompute::Nothing, Precision::F32);
    load(&mut executor, &random::state(plan, 1));
    let (pixels, labels) = random::batch(plan, 2, 1);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    executor.differentiate(batch, Step::default()).unwrap();
    let groups = groups(plan, &["norms"]);
    executor.set_groups(&groups).unwrap();
    let gradients = read(&executor, Arena::Gradients);
    for group in groups.into_iter().filter(|group| group.frozen) {
        assert!(gradients[group.range].iter().all(|&value| value == 0.0));
    }
}

#[test]
fn a_trainer_freezes_stages_of_an_executor_that_was_made_without() {
    let plan = Bc::PLAN;
    let config = Config {
        batch: 4,
        threads: 1,
        freeze: Freeze::until("classifier"),
        ..Config::cifar()
    };
    let [own, statistics] = plan.trainable(config.freeze.of(&plan).unwrap());
    let executor = on_cpu(&plan, 4, Recompute::Nothing, Precision::F32);
    let model = Cpu::seed_from_u64(1).build_module::<Bc, f32>();
    let mut trainer = Trainer::with_executor(model, config, Box::new(executor)).unwrap();
    let before = trainer.state().unwrap();
    let (pixels, labels) = random::batch(&plan, 4, 1);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    trainer.step(batch).unwrap();
    let after = trainer.state().unwrap();
    assert!(own.start > 0);
    let [first, rest] = [0..own.start, own.start..own.end];
    assert_eq!(after.parameters[first.clone()], before.parameters[first]);
    assert_ne!(after.parameters[rest.clone()], before.parameters[rest]);
    let first = 0..statistics.start;
    assert_eq!(after.running[first.clone()], before.running[first]);
}

//! Numbers out of range are errors in words, wherever they come from: nothing panics, wraps or
//! writes out of bounds.

use densenet_runtime::cpu::{self, Frozen, FrozenOptions, Level, Precision};
use densenet_runtime::dfdx::prelude::*;
use densenet_runtime::nn::{self, ForwardError, Stage};
use densenet_runtime::plan::{Block, BlockSpec, Plan, Ratio, Spec, Stem, StemKind, Transition};
use densenet_runtime::train::{Config, Trainer};
use densenet_runtime::weights::State;
use densenet_runtime::{
    Arena, Batch, Executor, ExecutorError, Network as _, Pixels, Step, densenet,
};

densenet! {
    /// Its last feature maps are one pixel.
    OnePixel {
        blocks: [1, 1, 1, 1], k: 4, theta: 0.5, bottleneck, stem: imagenet, input: [3, 32, 32],
        classes: 5,
    }
}

/// A small plan.
fn plan() -> Plan {
    spec().plan().unwrap()
}

fn spec() -> Spec {
    let block = BlockSpec {
        layers: 2,
        growth: 3,
    };
    Spec {
        blocks: vec![block; 2],
        theta: Ratio::new(1, 2),
        bottleneck: Some(2),
        stem: StemKind::Cifar,
        init: 5,
        input: [2, 6, 7],
        classes: 4,
        dropout: 0.0,
    }
}

fn frozen(plan: &Plan, options: FrozenOptions) -> Result<Frozen, ExecutorError> {
    let parameters = vec![0.01; plan.parameter_count()];
    let running = vec![1.0; plan.running_count()];
    Frozen::new(plan, &parameters, &running, options)
}

#[test]
fn a_batch_that_cannot_be_counted_is_refused_when_an_executor_is_made() {
    let plan = plan();
    for (batch, words) in [
        (0, "the requested batch size is zero"),
        (plan.countable_batch() + 1, "too large to count"),
        (1 << 60, "too large to count"),
        (usize::MAX, "too large to count"),
    ] {
        let options = cpu::CpuOptions::for_batch(batch);
        let executor = cpu::CpuExecutor::new(plan.clone(), options).err();
        let frozen = frozen(&plan, FrozenOptions::for_batch(batch)).err();
        for error in [executor, frozen] {
            let error = error.unwrap();
            assert!(matches!(error, ExecutorError::Capacity { found, .. } if found == batch));
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

#[test]
fn memory_that_no_machine_has_is_refused_without_wrapping() {
    let mut spec = spec();
    (spec.init, spec.input) = (1 << 20, [1, 2, 2]);
    let plan = spec.plan().unwrap();
    let options = cpu::CpuOptions::for_batch(plan.countable_batch());
    let error = cpu::CpuExecutor::new(plan, options).err().unwrap();
    assert!(
        matches!(error, ExecutorError::OutOfMemory { .. }),
        "{error}"
    );
}

#[test]
fn the_number_of_threads_is_capped() {
    let plan = plan();
    for threads in [65, 1 << 40, usize::MAX] {
        let options = cpu::CpuOptions {
            threads,
            ..cpu::CpuOptions::for_batch(2)
        };
        let executor = cpu::CpuExecutor::new(plan.clone(), options).unwrap();
        assert!((1..=64).contains(&executor.threads()));
        let options = FrozenOptions {
            threads,
            ..FrozenOptions::for_batch(2)
        };
        let mut frozen = frozen(&plan, options).unwrap();
        assert!((1..=64).contains(&frozen.threads()));
        let logits = frozen
            .infer(Pixels::Nchw(&[0.5; 2 * 2 * 6 * 7]), 2)
            .unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()));
    }
}

#[test]
fn instructions_that_the_processor_lacks_are_not_used() {
    let plan = plan();
    for level in [
        Level::Baseline,
        Level::Avx2,
        Level::Avx512,
        Level::Avx512Bf16,
    ] {
        for precision in [Precision::F32, Precision::Bf16] {
            let options = FrozenOptions {
                level,
                precision,
                ..FrozenOptions::for_batch(1)
            };
            let mut frozen = frozen(&plan, options).unwrap();
            assert_eq!(frozen.level(), level.min(Level::detect()));
            let logits = frozen.infer(Pixels::Nchw(&[0.5; 2 * 6 * 7]), 1).unwrap();
            assert!(logits.iter().all(|logit| logit.is_finite()));
        }
    }
}

#[test]
fn images_of_another_size_are_refused() {
    let mut frozen = frozen(&plan(), FrozenOptions::for_batch(3)).unwrap();
    for (values, images) in [
        (83, 1),
        (85, 1),
        (0, 1),
        (84, 2),
        (84, 0),
        (84, 4),
        (84, usize::MAX),
    ] {
        let pixels = vec![0.0; values];
        assert!(frozen.infer(Pixels::Nchw(&pixels), images).is_err());
    }
}

/// Images of a network whose last feature maps are one pixel, and their labels.
fn images(count: usize) -> (Vec<f32>, Vec<u32>) {
    let pixels = (0..count * 3 * 32 * 32).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0);
    (pixels.collect(), (0..count as u32).collect())
}

/// All that an executor of a network holds.
fn held(executor: &cpu::CpuExecutor) -> Vec<Vec<f32>> {
    let plan = executor.plan();
    let (parameters, running) = (plan.parameter_count(), plan.running_count());
    [
        (Arena::Parameters, parameters),
        (Arena::Gradients, parameters),
        (Arena::Momentum, parameters),
        (Arena::Running, running),
    ]
    .map(|(arena, len)| {
        let mut values = vec![0.0; len];
        executor.read(arena, &mut values).unwrap();
        values
    })
    .into()
}

#[test]
fn one_image_does_not_train_maps_of_one_pixel_and_changes_nothing() {
    let model = Cpu::default().build_module::<OnePixel, f32>();
    let state = State::of(&model);
    let mut executor =
        cpu::CpuExecutor::new(OnePixel::PLAN, cpu::CpuOptions::for_batch(2)).unwrap();
    executor
        .write(Arena::Parameters, &state.parameters)
        .unwrap();
    executor.write(Arena::Running, &state.running).unwrap();
    let (pixels, labels) = images(2);
    let two = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    executor.differentiate(two, Step::default()).unwrap();
    let before = held(&executor);
    let (pixels, labels) = images(1);
    let one = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    for accumulate in [false, true] {
        let step = Step {
            accumulate,
            ..Step::default()
        };
        let error = executor.differentiate(one, step).unwrap_err().to_string();
        for words in ["more than 1 value per channel", "block 4", "1x1", "1 image"] {
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(held(&executor), before);
    }
    // To be evaluated, an image may be alone.
    assert!(executor.evaluate(one).unwrap().loss.is_finite());
}

#[test]
fn a_trainer_refuses_it_too_even_for_a_piece_of_a_batch() {
    for (count, accumulation) in [(1, 1), (3, 2), (2, 2)] {
        let model = Cpu::default().build_module::<OnePixel, f32>();
        let config = Config {
            batch: 4,
            accumulation,
            ..Config::cifar()
        };
        let mut trainer = Trainer::new(model, config).unwrap();
        let (pixels, labels) = images(count);
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
        let error = trainer.step(batch).unwrap_err().to_string();
        assert!(error.contains("block 4 has feature maps of 1x1"), "{error}");
    }
}

#[test]
fn one_image_does_not_train_maps_of_one_pixel_in_dfdxs_way() {
    let device = Cpu::default();
    let mut model = device.build_module::<OnePixel, f32>();
    let before = State::of(&model);
    let traced = |images: usize| {
        let pixels = images * 3 * 32 * 32;
        let values = (0..pixels).map(|i| (i * 37 % 101) as f32).collect();
        device
            .tensor_from_vec(values, (images, Const::<3>, Const::<32>, Const::<32>))
            .trace(Gradients::leaky())
    };
    let error = model.try_forward_mut(traced(1)).err().unwrap();
    assert!(matches!(
        error,
        ForwardError::Batch(ExecutorError::OneValue { .. })
    ));
    assert!(
        format!("{error:?}").contains("block 4 has feature maps of 1x1"),
        "{error:?}"
    );
    let error = model.try_forward_mut(traced(0)).err().unwrap();
    assert!(matches!(error, ForwardError::Empty), "{error}");
    assert_eq!(State::of(&model), before);

    // A stage on its own as well.
    let maps = device.zeros_like(&(1, Const::<4>, Const::<1>, Const::<1>));
    let error = model
        .block4
        .try_forward_mut(maps.trace(Gradients::leaky()))
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("a block has feature maps of 1x1"),
        "{error}"
    );
    assert_eq!(State::of(&model), before);

    assert!(model.try_forward_mut(traced(2)).is_ok());
    let one = device.zeros_like(&(1, Const::<3>, Const::<32>, Const::<32>));
    assert!(model.try_forward(one).is_ok());
}

#[test]
fn a_stage_that_is_not_its_modules_is_refused() {
    let device = Cpu::default();
    let mut model = device.build_module::<OnePixel, f32>();
    let block = Block {
        input: 5,
        layers: 1,
        growth: 4,
        bottleneck: Some(16),
        height: 2,
        width: 2,
    };
    let mut try_block = |block: Block, pixels: usize, outputs: usize| {
        let maps = device.zeros_like(&(pixels,));
        let stage = Stage::Block(block);
        let inferred = nn::infer(&model.block3, stage, maps.clone(), (outputs,)).is_ok();
        let traced = maps.trace(Gradients::leaky());
        let trained = nn::train(&mut model.block3, stage, 0.0, traced, (outputs,)).is_ok();
        assert_eq!(inferred, trained, "{block:?} {pixels} {outputs}");
        inferred
    };
    assert!(try_block(block, 20, 36));
    assert!(!try_block(block, 19, 36));
    assert!(!try_block(block, 20, 37));
    assert!(!try_block(block, 20, 0));
    for wrong in [0, 3, 1 << 31, 1 << 63, (1 << 63) + 1, usize::MAX] {
        for change in [
            |block: &mut Block, n| block.input = n,
            |block: &mut Block, n| block.layers = n,
            |block: &mut Block, n| block.growth = n,
            |block: &mut Block, n| block.bottleneck = Some(n),
            |block: &mut Block, n| block.height = n,
            |block: &mut Block, n| block.width = n,
        ] {
            let mut other = block;
            change(&mut other, wrong);
            assert!(!try_block(other, 20, 36), "{other:?}");
        }
    }
    let stem = Stem {
        kind: StemKind::Cifar,
        channels: 2,
        height: 2,
        width: (1 << 63) + 1,
        maps: 1 << 20,
    };
    let transition = Transition {
        input: 1 << 40,
        output: 1 << 40,
        height: 1 << 40,
        width: 1 << 40,
    };
    for stage in [Stage::Stem(stem), Stage::Transition(transition)] {
        let maps = device.zeros_like(&(4,));
        assert!(nn::infer(&model.stem, stage, maps, (4,)).is_err());
    }
}

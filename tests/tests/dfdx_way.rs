//! dfdx's own training loop works on a generated network, and computes what the `Trainer`
//! computes.

use densenet_runtime::dfdx::losses::cross_entropy_with_logits_loss;
use densenet_runtime::dfdx::optim::{Momentum, Optimizer, Sgd, SgdConfig, WeightDecay};
use densenet_runtime::dfdx::prelude::*;
use densenet_runtime::train::{Config, Schedule, Trainer};
use densenet_runtime::weights::State;
use densenet_runtime::{Arena, Batch, Network, Pixels, densenet};
use densenet_tests::compare::Comparison;
use densenet_tests::dfdx_way::arena;
use densenet_tests::random;

densenet! {
    /// BC, on grey images whose sides are not equal.
    Small { blocks: [3, 2, 2], k: 6, theta: 0.5, bottleneck, input: [1, 16, 12], classes: 7 }
}

densenet! {
    /// Plain layers after the ImageNet stem.
    Plain { blocks: [2, 2], k: 5, stem: imagenet, init: 9, input: [3, 24, 24], classes: 4 }
}

const BATCH: usize = 6;
const STEPS: usize = 4;
const RATE: f32 = 0.05;

/// A batch with something to learn: a class is brighter than the one before it.
fn batch<N: Network>() -> (Vec<f32>, Vec<u32>) {
    let (mut pixels, labels) = random::batch(&N::PLAN, BATCH, 7);
    let image = pixels.len() / BATCH;
    for (image, &label) in pixels.chunks_mut(image).zip(&labels) {
        image.iter_mut().for_each(|pixel| *pixel += label as f32);
    }
    (pixels, labels)
}

/// Losses, the first step's gradients, and the state after the last step.
struct Course {
    losses: Vec<f64>,
    gradients: Vec<f32>,
    state: State,
}

fn trainers_course<N: Network>(model: N) -> Course {
    let (pixels, labels) = batch::<N>();
    let config = Config {
        batch: BATCH,
        schedule: Schedule::constant(RATE),
        ..Config::cifar()
    };
    let mut trainer = Trainer::new(model, config).unwrap();
    let mut losses = Vec::new();
    let mut gradients = vec![0.0; N::PLAN.parameter_count()];
    for step in 0..STEPS {
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
        losses.push(trainer.step(batch).unwrap().loss);
        if step == 0 {
            trainer
                .executor()
                .read(Arena::Gradients, &mut gradients)
                .unwrap();
        }
    }
    Course {
        losses,
        gradients,
        state: State::of(&trainer.into_model().unwrap()),
    }
}

/// The loop as dfdx's users write it, for a network of this type.
macro_rules! dfdx_course {
    ($network:ty, $model:expr, [$c:literal, $h:literal, $w:literal], $classes:literal) => {{
        let dev = Cpu::default();
        let mut model: $network = $model;
        let (pixels, labels) = batch::<$network>();
        let images: Tensor<Rank4<BATCH, $c, $h, $w>, f32, Cpu> = dev.tensor(pixels);
        let mut targets = vec![0.0; BATCH * $classes];
        for (image, &label) in labels.iter().enumerate() {
            targets[image * $classes + label as usize] = 1.0;
        }
        let targets: Tensor<Rank2<BATCH, $classes>, f32, Cpu> = dev.tensor(targets);

        let mut sgd = Sgd::new(
            &model,
            SgdConfig {
                lr: f64::from(RATE),
                momentum: Some(Momentum::Nesterov(0.9)),
                weight_decay: Some(WeightDecay::L2(1e-4)),
            },
        );
        let mut gradients = model.alloc_grads();
        let mut losses = Vec::new();
        let mut first = Vec::new();
        for step in 0..STEPS {
            let logits = model.forward_mut(images.clone().trace(gradients));
            let loss = cross_entropy_with_logits_loss(logits, targets.clone());
            losses.push(f64::from(loss.array()));
            gradients = loss.backward();
            if step == 0 {
                first = arena(&model, &gradients);
            }
            sgd.update(&mut model, &gradients).unwrap();
            model.zero_grads(&mut gradients);
        }
        Course {
            losses,
            gradients: first,
            state: State::of(&model),
        }
    }};
}

fn assert_same<N: Network>(trainer: &Course, dfdx: &Course) {
    for (step, (ours, theirs)) in trainer.losses.iter().zip(&dfdx.losses).enumerate() {
        let relative = (ours - theirs).abs() / ours;
        assert!(relative < 1e-4, "loss of step {step}: {ours} {theirs}");
    }
    let plan = &N::PLAN;
    let mut gradients = Comparison::within(1e-4);
    gradients.add_parameters("gradient of", plan, &trainer.gradients, &dfdx.gradients);
    gradients.assert(N::NAME);
    let mut states = Comparison::within(1e-3);
    states.add_state("value of", plan, &trainer.state, &dfdx.state);
    states.assert(N::NAME);
}

#[test]
fn a_loop_of_dfdx_has_the_gradients_and_takes_the_steps_of_the_trainer() {
    let model = Cpu::default().build_module::<Small, f32>();
    let trainer = trainers_course(model.clone());
    let dfdx = dfdx_course!(Small, model, [1, 16, 12], 7);
    assert_same::<Small>(&trainer, &dfdx);
    assert!(trainer.losses[STEPS - 1] < trainer.losses[0]);
}

#[test]
fn so_does_one_of_plain_layers_after_the_imagenet_stem() {
    let model = Cpu::default().build_module::<Plain, f32>();
    let trainer = trainers_course(model.clone());
    let dfdx = dfdx_course!(Plain, model, [3, 24, 24], 4);
    assert_same::<Plain>(&trainer, &dfdx);
    assert!(trainer.losses[STEPS - 1] < trainer.losses[0]);
}

#[test]
fn a_network_with_a_view_for_a_parameter_does_not_train_and_stays_as_it_was() {
    let dev = Cpu::default();
    let mut model = dev.build_module::<Small, f32>();
    model.block1.layer1.norm1.scale = dev.ones::<Rank0>().broadcast();
    let before = State::of(&model);
    let (pixels, _) = batch::<Small>();
    let images: Tensor<Rank4<BATCH, 1, 16, 12>, f32, Cpu> = dev.tensor(pixels);
    let block = model.stem.forward(images.clone());
    let error = model
        .block1
        .try_forward_mut(block.leaky_trace())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "a tensor of shape [12] in the network is a broadcast or permuted view; assign one with \
         memory of its own"
    );
    assert_eq!(State::of(&model), before);
    // It computes nevertheless.
    let logits = model.forward(images);
    assert!(logits.as_vec().iter().all(|logit| logit.is_finite()));
}

#[test]
fn a_view_in_the_last_stage_is_found_before_the_first_one_runs() {
    let dev = Cpu::default();
    let mut model = dev.build_module::<Small, f32>();
    model.norm.scale = dev.ones::<Rank0>().broadcast();
    let before = State::of(&model);
    let images = Small::images(batch::<Small>().0).unwrap();
    assert!(model.try_forward_mut(images.leaky_traced()).is_err());
    assert_eq!(State::of(&model), before);
}

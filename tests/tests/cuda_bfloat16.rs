//! In bf16 the CUDA executor trains: maps and their gradients are stored in bfloat16, products have
//! bfloat16 operands, and everything else is f32.
//!
//! Two comparisons. With a plain step in the same format ([`densenet_tests::plain`]), which checks
//! every gradient; that step itself is the CPU executor's where it does not round. And with the
//! CPU executor in f32: what a user sees (losses, logits, statistics, weights) stays close, and so
//! do the gradients where the network is calm ([`calm_gradients_are_those_of_f32`]). Elsewhere the
//! gradients of small networks do not, on any device: the CPU's own, with bf16 products, are a
//! tenth of their size away, because a value that rounds to the other side of a ReLU changes the
//! gradient.
//!
//! The same happens on a card: its tensor cores truncate the sums of products that the emulator
//! rounds, and a few stored values are the neighbours of the expected ones. There, gradients may
//! differ from the plain step's by four times the difference that moving each value by a millionth
//! before rounding makes in the plain step.

#![allow(
    clippy::print_stdout,
    reason = "what is measured is for those who read tests"
)]

use densenet_runtime::cuda;
use densenet_runtime::densenet;
use densenet_runtime::plan::{Plan, Precision, Recompute, Role};
use densenet_runtime::weights::State;
use densenet_runtime::{Arena, Batch, Executor, Network, Pixels, Sgd, Step};
use densenet_tests::compare::{Comparison, TOLERANCE, distance};
use densenet_tests::emulated::{alone, device, on_cuda, options};
use densenet_tests::executor::{evaluate, load, logits, on_cpu, read, state};
use densenet_tests::networks::{Bc, Case};
use densenet_tests::plain::Plain;
use densenet_tests::{each_network, random};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How far bf16 may be from what it should be.
const BFLOAT16: f64 = 2e-2;

fn rounded(value: f32) -> f32 {
    half::bf16::from_f32(value).to_f32()
}

/// The same of a value a millionth away, up or down.
fn rounded_elsewhere(value: f32) -> f32 {
    let drawn = value.to_bits().wrapping_mul(0x9e37_79b9) >> 8;
    let share = drawn as f32 / (1 << 23) as f32 - 1.0;
    rounded(value * (1.0 + 1e-6 * share))
}

/// Images whose class shows: each has its class's pattern, and noise.
fn batch(plan: &Plan, images: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
    let (mut pixels, labels) = random::batch(plan, images, seed);
    let (patterns, _) = random::batch(plan, plan.classes(), 1234);
    let size = pixels.len() / images;
    for (image, &label) in pixels.chunks_exact_mut(size).zip(&labels) {
        let pattern = &patterns[label as usize * size..][..size];
        for (pixel, &pattern) in image.iter_mut().zip(pattern) {
            *pixel = 0.5 * *pixel + pattern;
        }
    }
    (pixels, labels)
}

/// Images that are nearly their class's colour: the pixels' contributions to a weight's gradient
/// add up, while in noise they would cancel and leave the rounding.
fn coloured(plan: &Plan, images: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
    let (mut pixels, labels) = random::batch(plan, images, seed);
    let (area, channels) = (plan.stem().height * plan.stem().width, plan.stem().channels);
    let mut rng = StdRng::seed_from_u64(seed);
    let colours: Vec<f32> = (0..plan.classes() * channels)
        .map(|_| rng.gen_range(-2.0..2.0))
        .collect();
    for (image, &label) in pixels.chunks_exact_mut(channels * area).zip(&labels) {
        let colour = &colours[label as usize * channels..][..channels];
        for (channel, &value) in image.chunks_exact_mut(area).zip(colour) {
            channel
                .iter_mut()
                .for_each(|pixel| *pixel = value + 0.35 * *pixel);
        }
    }
    (pixels, labels)
}

/// A state in which BN leaves few values near zero, so that a ReLU lets the same ones through
/// however they were rounded.
fn calm(plan: &Plan, seed: u64) -> State {
    let mut state = random::state(plan, seed);
    let mut rng = StdRng::seed_from_u64(seed);
    for parameter in plan.parameters() {
        for index in parameter.range() {
            match parameter.role {
                Role::NormScale => state.parameters[index] *= 0.3,
                Role::NormBias => {
                    state.parameters[index] = if rng.gen_bool(0.7) { 1.5 } else { -1.5 };
                }
                _ => (),
            }
        }
    }
    state
}

/// The visible results of a step.
struct Seen {
    loss: f32,
    logits: Vec<f32>,
    gradients: Vec<f32>,
}

fn differentiate(executor: &mut impl Executor, batch: Batch<'_>, step: Step) -> Seen {
    let outcome = executor.differentiate(batch, step);
    let outcome = outcome.unwrap_or_else(|error| panic!("{error}"));
    Seen {
        loss: outcome.loss as f32,
        logits: logits(executor, batch.images(executor.plan())),
        gradients: read(executor, Arena::Gradients),
    }
}

/// Trains for three steps, of a full, a partial and an accumulated batch, and compares with the
/// plain step all, and with the CPU executor in f32 what stays close to it.
fn train(
    executor: &mut impl Executor,
    plan: &Plan,
    round: fn(f32) -> f32,
    name: &str,
    tolerance: f64,
) {
    train_beside(executor, plan, round, name, tolerance, None);
}

/// The same; on a card with the tolerance for its sums.
fn train_beside(
    executor: &mut impl Executor,
    plan: &Plan,
    round: fn(f32) -> f32,
    name: &str,
    tolerance: f64,
    elsewhere: Option<fn(f32) -> f32>,
) {
    let images = executor.capacity();
    let sgd = Sgd {
        learning_rate: 0.01,
        ..Sgd::default()
    };
    let start = random::state(plan, 7);
    let mut plain = Plain::new(plan, &start, round);
    let mut exact = on_cpu(plan, images, Recompute::Nothing, Precision::F32);
    load(executor, &start);
    load(&mut exact, &start);
    let mut same = Comparison::within(tolerance);
    let mut close = Comparison::within(BFLOAT16);
    for (number, images) in [images, images - 1, images].into_iter().enumerate() {
        // From the same state: a value that rounds to its other neighbour, because its sum was in
        // another order, would grow from step to step.
        plain.state = state(executor);
        plain.gradients = read(executor, Arena::Gradients);
        plain.momentum = read(executor, Arena::Momentum);
        let (pixels, labels) = batch(plan, images, 10 + number as u64);
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
        let step = Step {
            label_smoothing: 0.1,
            scale: 0.5,
            accumulate: number == 2,
            seed: 7 + number as u64,
        };
        let found = differentiate(executor, batch, step);
        let expected = differentiate(&mut exact, batch, step);
        let other = elsewhere.map(|round| {
            let mut other = Plain::new(plan, &plain.state, round);
            other.gradients.clone_from(&plain.gradients);
            other.differentiate(&pixels, &labels, step);
            other.gradients
        });
        let loss = plain.differentiate(&pixels, &labels, step);
        same.add(format!("loss {number}"), &[found.loss], &[loss as f32]);
        same.add(format!("logits {number}"), &found.logits, &plain.logits);
        let what = format!("gradient {number} of");
        match &other {
            None => same.add_parameters(&what, plan, &found.gradients, &plain.gradients),
            Some(other) => {
                let gradients = [&found.gradients[..], &plain.gradients, other];
                same.add_gradients_beside(&what, plan, gradients);
            }
        }
        close.add(format!("loss {number}"), &[found.loss], &[expected.loss]);
        close.add(format!("logits {number}"), &found.logits, &expected.logits);
        executor.descend(sgd.into()).unwrap();
        exact.descend(sgd.into()).unwrap();
        plain.descend(sgd);
        let what = format!("after step {number}");
        same.add_state(&what, plan, &state(executor), &plain.state);
    }
    let after = state(executor);
    close.add_state("after training", plan, &after, &state(&exact));
    let (pixels, labels) = batch(plan, images - 1, 99);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    let found = evaluate(executor, batch);
    plain.evaluate(&pixels, &labels);
    same.add("evaluation", &found, &plain.logits);
    close.add("evaluation", &found, &evaluate(&mut exact, batch));
    println!(
        "{name}: {:.1e} from the plain step, {:.1e} from f32",
        same.worst(),
        close.worst()
    );
    same.assert(&format!("{name} and the plain step"));
    close.assert(&format!("{name} and f32"));
}

fn bfloat16(recompute: Recompute) -> cuda::CudaOptions {
    cuda::CudaOptions {
        precision: Precision::Bf16,
        recompute,
        ..options(12)
    }
}

densenet! {
    /// BC with the ImageNet stem. The golden file's has four blocks, the last with maps of one
    /// pixel, whose statistics are of twelve values and sensitive to rounding.
    pub ImageNetBcOfTwo {
        blocks: [2, 2],
        k: 4,
        theta: 0.5,
        bottleneck,
        stem: imagenet,
        init: 8,
        input: [3, 33, 45],
        classes: 7,
    }
}

/// The networks of the golden files, except for the one that [`ImageNetBcOfTwo`] replaces.
macro_rules! each_but_one {
    ($check:ident) => {
        each_network!($check:
            plain Plain,
            bottleneck Bottleneck,
            compressed Compressed,
            bc Bc,
            imagenet_compressed ImageNetCompressed,
            one_block OneBlock,
        );
    };
}

fn trains_in_bfloat16(plan: &Plan, name: &str) {
    let _alone = alone();
    let (emulator, device) = device();
    emulator.seed(3);
    let mut executor = on_cuda(&device, plan, bfloat16(Recompute::Nothing));
    let elsewhere = emulator
        .is_card()
        .then_some(rounded_elsewhere as fn(f32) -> f32);
    train_beside(&mut executor, plan, rounded, name, BFLOAT16, elsewhere);
}

fn golden_trains_in_bfloat16<N: Case>() {
    trains_in_bfloat16(&N::PLAN, N::GOLDEN);
}

each_but_one!(golden_trains_in_bfloat16);

#[test]
fn imagenet_bc() {
    trains_in_bfloat16(&ImageNetBcOfTwo::PLAN, "imagenet_bc");
}

#[test]
fn recomputed_bottlenecks_are_the_same() {
    let _alone = alone();
    let (emulator, device) = device();
    let mut executor = on_cuda(&device, &Bc::PLAN, bfloat16(Recompute::Bottlenecks));
    let elsewhere = emulator
        .is_card()
        .then_some(rounded_elsewhere as fn(f32) -> f32);
    let (plan, name) = (&Bc::PLAN, "recomputed");
    train_beside(&mut executor, plan, rounded, name, BFLOAT16, elsewhere);
}

/// All convolutions' gradients, all classifiers', scales' and shifts', each beside those of the
/// CPU executor in f32. One by one, the shifts of channels that the next BN takes away are nothing
/// but rounding; the plain step checks those.
fn calm_gradients_are_those_of_f32(plan: &Plan) {
    const IMAGES: usize = 24;
    let _alone = alone();
    let (emulator, device) = device();
    emulator.seed(4);
    let options = cuda::CudaOptions {
        batch: IMAGES,
        ..bfloat16(Recompute::Nothing)
    };
    let mut executor = on_cuda(&device, plan, options);
    let mut exact = on_cpu(plan, IMAGES, Recompute::Nothing, Precision::F32);
    let start = calm(plan, 7);
    load(&mut executor, &start);
    load(&mut exact, &start);
    let (pixels, labels) = coloured(plan, IMAGES, 10);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    let step = Step {
        seed: 5,
        ..Step::default()
    };
    let found = differentiate(&mut executor, batch, step);
    let expected = differentiate(&mut exact, batch, step);
    for role in [
        Role::ConvWeight,
        Role::NormScale,
        Role::NormBias,
        Role::LinearWeight,
        Role::LinearBias,
    ] {
        let of_role = |gradients: &[f32]| -> Vec<f32> {
            let mut parameters = plan.parameters();
            parameters.retain(|parameter| parameter.role == role);
            let values = parameters
                .iter()
                .map(|parameter| &gradients[parameter.range()]);
            values.flatten().copied().collect()
        };
        let off = distance(&of_role(&found.gradients), &of_role(&expected.gradients));
        println!("{role:?}: {off:.4}");
        assert!(off < BFLOAT16, "{role:?}: {off}");
        assert!(off > 1e-6, "{role:?}: nothing was rounded");
    }
}

mod calm_gradients {
    use super::*;

    fn check<N: Case>() {
        calm_gradients_are_those_of_f32(&N::PLAN);
    }

    each_but_one!(check);

    #[test]
    fn dropout() {
        let plan = Bc::PLAN.with_dropout(0.25).unwrap();
        calm_gradients_are_those_of_f32(&plan);
    }

    #[test]
    fn imagenet_bc() {
        calm_gradients_are_those_of_f32(&ImageNetBcOfTwo::PLAN);
    }
}

densenet! {
    /// A block as deep as DenseNet-121's deepest, so that its first maps have 24 consumers.
    pub Deep {
        blocks: [24],
        k: 4,
        bottleneck: 2,
        stem: cifar,
        init: 8,
        input: [3, 12, 12],
        classes: 4,
    }
}

/// Gradients of the plain step, of all parameters.
fn gradients(round: fn(f32) -> f32, accumulate: fn(f32) -> f32) -> Vec<f32> {
    let plan = &Deep::PLAN;
    let mut plain = Plain::new(plan, &random::state(plan, 7), round);
    plain.accumulate_in(accumulate);
    let (pixels, labels) = batch(plan, 8, 10);
    plain.differentiate(&pixels, &labels, Step::default());
    plain.gradients
}

/// Why the gradient buffer is bfloat16, too, though many consumers add to it: that costs little
/// beside what storing maps costs, and it is the largest part of what a step moves.
#[test]
fn sums_of_consumers_in_bfloat16_cost_little_accuracy() {
    let exact = gradients(|value| value, |value| value);
    let alone = distance(&gradients(|value| value, rounded), &exact);
    let maps = distance(&gradients(rounded, |value| value), &exact);
    let both = distance(&gradients(rounded, rounded), &exact);
    println!("sums in bf16 {alone:.4}, all else {maps:.4}, both {both:.4}");
    assert!(
        alone < 0.02 && both < 1.25 * maps,
        "{alone}, {maps}, {both}"
    );
}

mod without_rounding {
    use super::*;

    /// The plain step is the CPU executor's.
    fn trains_alike<N: Case>() {
        let mut executor = on_cpu(&N::PLAN, 12, Recompute::Nothing, Precision::F32);
        train(&mut executor, &N::PLAN, |value| value, N::GOLDEN, TOLERANCE);
    }

    each_network!(trains_alike);
}

//! The one mistake is the one message, in whatever way the network is used.

use densenet_runtime::data::Loader;
use densenet_runtime::dfdx::optim::{Optimizer, Sgd};
use densenet_runtime::dfdx::prelude::*;
use densenet_runtime::nn::ForwardError;
use densenet_runtime::plan::{Plan, Recompute};
use densenet_runtime::train::{Config, Fit, Summary, Trainer};
use densenet_runtime::weights::{State, WeightsError};
use densenet_runtime::{Device, Network};

densenet_runtime::densenet! {
    pub Pets {
        blocks: [6, 12, 24],
        growht: 12,
        theta: 0.5,
        bottleneck,
        input: [3, 64, 64],
        classes: ["cat", "dog"],
    }
}

const PLAN: Plan = <Pets as Network>::PLAN;
const FIGURES: (usize, u64, usize) = (Pets::PARAMETERS, Pets::MULTIPLY_ADDS, Pets::LAYERS);
const BYTES: u64 = Pets::training_bytes(64, Recompute::Nothing);

struct Shop {
    network: Pets,
}

fn generic<N: Network>(network: N) -> (N, &'static str) {
    (network, N::NAME)
}

fn build(device: &Cpu) -> Pets {
    let (network, _) = generic(device.build_module::<Pets, f32>());
    Shop { network }.network.clone()
}

fn infer(network: &Pets, device: &Cpu) -> Tensor<(usize, Const<2>), f32, Cpu> {
    network.forward(device.zeros_like(&(8, Const::<3>, Const::<64>, Const::<64>)))
}

fn train_as_dfdx_does(network: &mut Pets, device: &Cpu) -> Result<f32, ForwardError> {
    let mut gradients = network.alloc_grads();
    let mut optimizer = Sgd::new(network, Default::default());
    let images: Tensor<Rank4<8, 3, 64, 64>, f32, Cpu> = device.zeros();
    let labels: Tensor<Rank2<8, 2>, f32, Cpu> = device.zeros();
    let logits = network.try_forward_mut(images.trace(gradients))?;
    let loss = Pets::cross_entropy(logits, labels);
    let value = loss.array();
    gradients = loss.backward();
    let _ = optimizer.update(network, &gradients);
    Ok(value)
}

fn load(network: &mut Pets, path: &str) -> Result<(), WeightsError> {
    State::read(&Pets::PLAN, path)?.store_into(network)?;
    State::of(network).write(&Pets::PLAN, path)
}

fn train(network: Pets, data: &Loader) -> Result<Summary, Box<dyn std::error::Error>> {
    let mut trainer = Trainer::on(network, Config::cifar(), &Device::Cpu)?;
    trainer.resume("checkpoint.safetensors")?;
    let summary = trainer.fit(data, data, &Fit::default(), &mut ())?;
    let _: Pets = trainer.into_model()?;
    Ok(summary)
}

fn main() {
    let device = Cpu::default();
    let mut network = build(&device);
    println!("{:?} {PLAN:?} {FIGURES:?} {BYTES} {:?}", network, Pets::CLASSES);
    let _ = infer(&network, &device);
    let _ = train_as_dfdx_does(&mut network, &device);
    let _ = load(&mut network, "weights.safetensors");
    let _: fn(Pets, &Loader) -> _ = train;
}

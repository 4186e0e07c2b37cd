//! Trains a generated network as a dfdx module: dfdx's tape, loss and optimiser.
//!
//! Use this to compose networks: the network is a dfdx module like any other, and can be a part of
//! a larger one. It computes the same as `Trainer`, but `Trainer` is faster, since it does not copy
//! parameters and activations back and forth.
//!
//! ```text
//! apt-get install dataset-fashion-mnist
//! cargo run --example dfdx_loop
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use densenet_models::shell::Fashion;
use densenet_runtime::data::{LoadedBatch, Loader};
use densenet_runtime::dfdx::optim::{Momentum, Optimizer, Sgd, SgdConfig, WeightDecay};
use densenet_runtime::dfdx::prelude::*;
use densenet_runtime::{console, densenet, say};

densenet! {
    /// 22 layers for the ten classes of 28x28 grey images.
    Clothes { blocks: [3, 3, 3], k: 8, theta: 0.5, bottleneck, input: [1, 28, 28] }
}

/// Trains a small DenseNet-BC on Fashion-MNIST in dfdx's training loop.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    fashion: Fashion,
}

const BATCH: usize = 32;
const STEPS: usize = 300;
const RATE: f64 = 0.05;

type Images = Tensor<Rank4<BATCH, 1, 28, 28>, f32, Cpu>;
type Targets = Tensor<Rank2<BATCH, 10>, f32, Cpu>;

fn main() -> ExitCode {
    console::exit_code(run(&Arguments::parse()).map(|()| ExitCode::SUCCESS))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let (train, test) = arguments.fashion.read()?;
    let train = Loader::training(Arc::new(train), BATCH)?;
    let test = Loader::evaluation(Arc::new(test), BATCH)?;

    let dev = Cpu::seed_from_u64(0);
    let mut model = dev.build_module::<Clothes, f32>();
    let mut sgd = Sgd::new(
        &model,
        SgdConfig {
            lr: RATE,
            momentum: Some(Momentum::Nesterov(0.9)),
            weight_decay: Some(WeightDecay::L2(1e-4)),
        },
    );

    let mut gradients = model.alloc_grads();
    for (step, batch) in train.epoch(0).take(STEPS).enumerate() {
        let (images, targets) = tensors(&dev, &train, &batch?);
        let logits = model.forward_mut(images.trace(gradients));
        // dfdx's loss; with targets of other classes this would not compile.
        let loss = Clothes::cross_entropy(logits, targets);
        if step % 20 == 0 {
            say!("step {step:3}: loss {:.3}", loss.array());
        }
        gradients = loss.backward();
        // Down to 0, since running statistics lag behind weights that change fast.
        sgd.cfg.lr = RATE * (1.0 - step as f64 / STEPS as f64);
        sgd.update(&mut model, &gradients)?;
        model.zero_grads(&mut gradients);
    }

    let (mut right, mut images) = (0, 0);
    // The last batch of the 10,000 is not full, and these tensors' batch is a constant.
    for batch in test.epoch(0).take(test.dataset().len() / BATCH) {
        let batch = batch?;
        let (pixels, _) = tensors(&dev, &test, &batch);
        let logits: Targets = model.forward(pixels);
        for (logits, &label) in logits.array().iter().zip(batch.labels()) {
            let own = logits[label as usize];
            right += usize::from(logits.iter().all(|&logit| logit <= own));
            images += 1;
        }
    }
    let error = 1.0 - right as f64 / images as f64;
    say!("test error after {STEPS} steps: {:.1}%", 100.0 * error);
    Ok(())
}

/// A batch as dfdx takes it: normalised pixels, and a 1 at each image's class.
fn tensors(dev: &Cpu, loader: &Loader, batch: &LoadedBatch) -> (Images, Targets) {
    let normalization = loader.dataset().normalization();
    let (mean, std) = (normalization.mean[0], normalization.std[0]);
    let bytes = batch.pixels.bytes().unwrap_or_default();
    let pixels: Vec<f32> = bytes
        .iter()
        .map(|&byte| (f32::from(byte) / 255.0 - mean) / std)
        .collect();
    let mut targets = vec![0.0; BATCH * 10];
    for (image, &label) in batch.labels().iter().enumerate() {
        targets[10 * image + label as usize] = 1.0;
    }
    (dev.tensor(pixels), dev.tensor(targets))
}

//! Trains a small DenseNet-BC on Fashion-MNIST: a minute or two for about 12% test error.
//!
//! ```text
//! apt-get install dataset-fashion-mnist
//! cargo run --example fashion_mnist
//! ```
//!
//! With `--evaluate` it computes the test error of a trained network instead, which needs no package.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use densenet_models::shell::{CommandLine, Fashion, Start, TrainingOptions, describe, exit_code};
use densenet_models::{CLOTHES_BC, clothes_logits, mistakes};
use densenet_runtime::data::Dataset;
use densenet_runtime::prelude::*;

densenet! {
    /// 22 layers for the ten classes of 28x28 grey images.
    Clothes { blocks: [3, 3, 3], k: 8, theta: 0.5, bottleneck, input: [1, 28, 28] }
}

/// Trains a small DenseNet-BC on Fashion-MNIST.
#[derive(Parser)]
struct Arguments {
    /// Computes the test error of a DenseNet-BC with L = 100 and k = 12 instead, whose weights are in
    /// a file [default: models/weights/clothes_bc.safetensors].
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = CLOTHES_BC,
          conflicts_with_all = ["Start", "TrainingOptions"])]
    evaluate: Option<PathBuf>,
    #[command(flatten)]
    fashion: Fashion,
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    training: TrainingOptions,
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<Ending, Box<dyn Error>> {
    if let Some(weights) = &arguments.evaluate {
        return evaluate(weights, &arguments.fashion);
    }
    let options = &arguments.training;
    let ranks = Ranks::from_env()?;
    let settings = Config {
        epochs: 1,
        batch: 32,
        schedule: Schedule::cosine(0.1, 0.1),
        ..Config::cifar()
    };
    let config = options.config(settings, &ranks)?;
    let device = options.device(&ranks)?;
    let (train, test) = arguments.fashion.read()?;
    let normalization = (arguments.start).normalization(options, train.normalization())?;
    let train = train.normalized(normalization.clone());
    let test = test.normalized(normalization);
    TrainingOptions::check_batch(&config, train.len())?;
    let folder = options.folder("out/fashion_mnist")?;
    describe(
        (Clothes::NAME, &Clothes::PLAN),
        &config,
        &device,
        [&train, &test],
    );

    let train = Loader::training(Arc::new(train), config.batch)?.among(&ranks)?;
    let test = Loader::evaluation(Arc::new(test), config.batch)?.among(&ranks)?;
    let train = train.seeded(config.seed);

    let model: Clothes = arguments.start.model(&config)?;
    let mut trainer = Trainer::among(model, config, &device, &ranks)?;
    options.resume(&mut trainer)?;
    let fit = options.fit(&folder)?;
    let mut observers = folder.observers(&trainer, "A small DenseNet-BC on Fashion-MNIST")?;
    let summary = trainer.fit(&train, &test, &fit, &mut observers)?;

    if summary.ending == Ending::Interrupted {
        let line = CommandLine::of_this_program().path("--data", Some(&arguments.fashion.data));
        options.say_how_to_go_on(line, &summary, &folder, &ranks);
    } else {
        // Choosing the best epoch would use the test set.
        let last = match summary.evaluation {
            Some(last) => last,
            None => trainer.evaluate(&test)?,
        };
        say!("test error: {:.2}%", 100.0 * last.top1_error());
    }
    say!("see {}", folder.path().display());
    Ok(summary.ending)
}

/// Prints the test error of a trained network.
fn evaluate(weights: &Path, fashion: &Fashion) -> Result<Ending, Box<dyn Error>> {
    let test = Arc::new(fashion.test_images()?);
    let images = test.len();
    let logits = clothes_logits(weights, test.clone(), FrozenOptions::for_batch(100))?;
    let wrong = mistakes(&logits, &*test);
    say!(
        "test error: {:.2}% ({wrong} of {images} images)",
        100.0 * wrong as f64 / images as f64
    );
    Ok(Ending::Finished)
}

//! Trains a small DenseNet-BC on Fashion-MNIST: a minute or two for about 12% test error.
//!
//! ```text
//! apt-get install dataset-fashion-mnist
//! cargo run --example fashion_mnist
//! ```

mod shell;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use densenet_runtime::cpu::Precision;
use densenet_runtime::data::{Loader, idx};
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::train::{Config, Ending, Fit, Interrupt, RunFolder, Schedule, Trainer};
use densenet_runtime::{DeviceChoice, Network, console, densenet, say};
use shell::CommandLine;

densenet! {
    /// 22 layers for the ten classes of 28x28 grey images.
    Clothes { blocks: [3, 3, 3], k: 8, theta: 0.5, bottleneck, input: [1, 28, 28] }
}

/// Trains a small DenseNet-BC on Fashion-MNIST.
#[derive(Parser)]
struct Arguments {
    /// The four IDX files, plain or compressed; the default is where Debian's package
    /// dataset-fashion-mnist puts them.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/usr/share/datasets/fashion-mnist"
    )]
    data: PathBuf,
    /// Passes over the 60,000 training images.
    #[arg(long, value_name = "N", default_value_t = 1)]
    epochs: u32,
    /// The learning rate at its highest [default: 0.1].
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    lr: Option<f32>,
    /// What computes: cpu, cuda (the first CUDA device), cuda:N, or best.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// In which numbers products are computed: f32 or bf16.
    #[arg(long, default_value_t)]
    precision: Precision,
    /// What initial weights and the order of images are drawn from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// A checkpoint to go on from; the other options have to be as they were, but `--lr`, which
    /// changes the schedule from there on.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Weights of the same network to start from: a checkpoint, say.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    weights: Option<PathBuf>,
    /// Where checkpoint, metrics and curves go.
    #[arg(long, value_name = "DIR", default_value = "out/fashion_mnist")]
    out: PathBuf,
}

fn main() -> ExitCode {
    console::exit_code(run(&Arguments::parse()).map(|ending| match ending {
        Ending::Interrupted => ExitCode::from(130),
        _ => ExitCode::SUCCESS,
    }))
}

fn run(arguments: &Arguments) -> Result<Ending, Box<dyn Error>> {
    if !arguments.data.is_dir() {
        let data = arguments.data.display();
        return Err(format!(
            "{data} is missing; run `apt-get install dataset-fashion-mnist`, or give the folder of the IDX files with --data"
        )
        .into());
    }
    let device = arguments.device.open()?;
    let config = Config {
        epochs: arguments.epochs,
        batch: 32,
        schedule: Schedule::cosine(arguments.lr.unwrap_or(0.1), 0.1),
        precision: arguments.precision,
        seed: arguments.seed,
        ..Config::cifar()
    };
    config.check()?;
    let (train, test) = idx::train_and_test(&arguments.data, &idx::FASHION)?;
    let train = Loader::training(Arc::new(train), config.batch)?.seeded(config.seed);
    let test = Loader::evaluation(Arc::new(test), config.batch)?;
    say!(
        "Clothes: {} parameters, {:.1} million multiply-adds an image",
        Clothes::PARAMETERS,
        Clothes::MULTIPLY_ADDS as f64 / 1e6,
    );

    let mut model = Cpu::seed_from_u64(config.seed).build_module::<Clothes, f32>();
    if let Some(file) = &arguments.weights {
        model.load_weights(file)?;
    }
    let mut trainer = Trainer::on(&device, model, config)?;
    match (&arguments.resume, arguments.lr) {
        (Some(file), Some(_)) => trainer.resume_with_schedule(file)?,
        (Some(file), None) => trainer.resume(file)?,
        (None, _) => {}
    }
    let folder = RunFolder::create(&arguments.out)?;
    let fit = Fit {
        checkpoint: Some(folder.checkpoint()),
        interrupt: Interrupt::on_ctrl_c()?,
        ..Fit::default()
    };
    let mut observers = folder.observers(&trainer, "A small DenseNet-BC on Fashion-MNIST")?;
    let summary = trainer.fit(&train, &test, &fit, &mut observers)?;

    if summary.ending == Ending::Interrupted {
        say!("\ninterrupted at step {}; to go on:", summary.step);
        console::say_bytes(&arguments.how_to_resume(&folder));
    } else if let Some(best) = summary.best {
        say!("test error: {:.2}%", 100.0 * best.top1_error);
    }
    say!("see {}", folder.path().display());
    Ok(summary.ending)
}

impl Arguments {
    fn how_to_resume(&self, folder: &RunFolder) -> Vec<u8> {
        let device = (self.device != DeviceChoice::Cpu).then_some(self.device);
        CommandLine::of_this_program()
            .path("--data", Some(&self.data))
            .option("--epochs", Some(self.epochs))
            .option("--lr", self.lr)
            .option("--device", device)
            .option("--precision", Some(self.precision))
            .option("--seed", Some(self.seed))
            .path("--out", Some(folder.path()))
            .path("--resume", Some(&folder.checkpoint()))
            .indented()
    }
}

//! Trains the paper's DenseNet-BC with L = 100 and k = 12 on CIFAR-10, CIFAR-100 or SVHN, by the
//! paper's settings (sections 4.1 and 4.2; Table 2).
//!
//! ```text
//! cargo run --example cifar_svhn -- cifar10 --data cifar-10-batches-bin --augment
//! ```

mod shell;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use densenet_models::{
    DenseNetBC100K12, DenseNetBC100K12C100, DenseNetBC100K12C100Dropout, DenseNetBC100K12Dropout,
};
use densenet_runtime::cpu::Precision;
use densenet_runtime::data::{Dataset as _, InMemory, Loader, ShiftAndFlip, cifar, svhn};
use densenet_runtime::dfdx::prelude::Cpu;
use densenet_runtime::plan::Recompute;
use densenet_runtime::train::{Config, Ending, Fit, Interrupt, RunFolder, Schedule, Trainer};
use densenet_runtime::{DeviceChoice, Network, console, say};
use shell::CommandLine;

/// Trains DenseNet-BC with L = 100 and k = 12 on images of 32x32.
#[derive(Parser)]
struct Arguments {
    #[arg(value_enum)]
    dataset: Dataset,
    /// The files as they are published: CIFAR's binary version, SVHN's cropped digits (with
    /// extra_32x32.mat).
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Shifts and mirrors the training images, as for the paper's C10+ and C100+. Without it the
    /// network has dropout 0.2, as for C10, C100 and SVHN.
    #[arg(long)]
    augment: bool,
    /// Passes over the training images [default: the paper's 300, and 40 for SVHN].
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Images of a step [default: the paper's 64]; the learning rate goes with it, 0.1 for 64.
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// The learning rate before it falls [default: 0.1 for 64 images a step, and in proportion].
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    lr: Option<f32>,
    /// Stop when so many steps are done in all; the learning rate does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// What computes: cpu, cuda (the first CUDA device), cuda:N, or best.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// In which numbers products are computed: f32 or bf16.
    #[arg(long, default_value_t)]
    precision: Precision,
    /// Computes the bottleneck maps again in the backward pass instead of keeping them: less memory,
    /// more time, the same numbers.
    #[arg(long)]
    recompute: bool,
    /// What initial weights, dropout and the order of images are drawn from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// A checkpoint to go on from; the other options have to be as they were, but `--lr`, which
    /// changes the schedule from there on.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Weights of the same network to start from: safetensors under torchvision's names, or a
    /// checkpoint.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    weights: Option<PathBuf>,
    /// Where checkpoint, metrics and curves go [default: the checkpoint's folder, or
    /// out/cifar_svhn].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dataset {
    Cifar10,
    Cifar100,
    Svhn,
}

const OUT: &str = "out/cifar_svhn";
/// What the paper holds out of SVHN's training images to choose the model by.
const HELD_OUT: usize = 6_000;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match (arguments.dataset, arguments.augment) {
        (Dataset::Cifar100, true) => run::<DenseNetBC100K12C100>(&arguments),
        (Dataset::Cifar100, false) => run::<DenseNetBC100K12C100Dropout>(&arguments),
        (_, true) => run::<DenseNetBC100K12>(&arguments),
        (_, false) => run::<DenseNetBC100K12Dropout>(&arguments),
    };
    console::exit_code(result.map(|ending| match ending {
        Ending::Interrupted => ExitCode::from(130),
        _ => ExitCode::SUCCESS,
    }))
}

fn run<N: Network>(arguments: &Arguments) -> Result<Ending, Box<dyn Error>> {
    let config = arguments.config();
    config.check()?;
    let device = arguments.device.open()?;
    let (train, validation, test) = arguments.images()?;
    if config.batch > train.len() {
        let (batch, images) = (config.batch, train.len());
        return Err(format!(
            "a step of {batch} images is more than the {images} to train on; take --batch-size {images} or less"
        )
        .into());
    }
    say!(
        "{}: {:.2} million parameters, {} images to train on",
        N::NAME,
        N::PLAN.parameter_count() as f64 / 1e6,
        train.len(),
    );
    let train = Loader::training(Arc::new(train), config.batch)?.seeded(config.seed);
    let evaluation = |images| Loader::evaluation(Arc::new(images), config.batch);
    let test = evaluation(test)?;
    let validation = validation.map(evaluation).transpose()?;

    let mut model = N::build(&Cpu::seed_from_u64(config.seed));
    if let Some(file) = &arguments.weights {
        model.load_weights(file)?;
    }
    let mut trainer = Trainer::on(&device, model, config)?;
    match (&arguments.resume, arguments.lr) {
        (Some(file), Some(_)) => trainer.resume_with_schedule(file)?,
        (Some(file), None) => trainer.resume(file)?,
        (None, _) => {}
    }
    let folder = RunFolder::create(arguments.out())?;
    let best = folder.best();
    if let (Some(file), Some(_), Some(_)) = (&arguments.resume, &validation, trainer.best()) {
        folder.bring_best(file)?;
    }
    let fit = Fit {
        steps: arguments.steps,
        checkpoint: Some(folder.checkpoint()),
        // Of CIFAR the last model is tested, of SVHN the one with the lowest validation error.
        best: validation.is_some().then(|| best.clone()),
        interrupt: Interrupt::on_ctrl_c()?,
        ..Fit::default()
    };
    let mut observers = folder.observers(&trainer, N::NAME)?;
    let held_out = validation.as_ref().unwrap_or(&test);
    let summary = trainer.fit(&train, held_out, &fit, &mut observers)?;
    if summary.ending == Ending::Interrupted {
        say!("\ninterrupted at step {}; to go on:", summary.step);
        console::say_bytes(&arguments.how_to_resume(&folder));
        return Ok(summary.ending);
    }
    let evaluation = match (&validation, summary.evaluation) {
        (None, Some(evaluation)) => evaluation,
        (None, None) => trainer.evaluate(&test)?,
        (Some(_), _) => {
            // It may be from before the schedule was changed.
            trainer.resume_with_schedule(&best)?;
            trainer.evaluate(&test)?
        }
    };
    say!("test error: {:.2}%", 100.0 * evaluation.top1_error());
    say!("see {}", folder.path().display());
    Ok(summary.ending)
}

impl Arguments {
    /// The paper's settings, but for those given.
    fn config(&self) -> Config {
        let paper = match self.dataset {
            Dataset::Svhn => Config::svhn(),
            Dataset::Cifar10 | Dataset::Cifar100 => Config::cifar(),
        };
        let batch = self.batch_size.unwrap_or(paper.batch);
        Config {
            epochs: self.epochs.unwrap_or(paper.epochs),
            batch,
            schedule: Schedule::halves(self.lr.unwrap_or(0.1 * batch as f32 / paper.batch as f32)),
            precision: self.precision,
            recompute: if self.recompute {
                Recompute::Bottlenecks
            } else {
                Recompute::Nothing
            },
            seed: self.seed,
            ..paper
        }
    }

    fn how_to_resume(&self, folder: &RunFolder) -> Vec<u8> {
        let dataset = self.dataset.to_possible_value();
        let dataset = dataset.as_ref().map_or("", |value| value.get_name());
        let device = (self.device != DeviceChoice::Cpu).then_some(self.device);
        let precision = (self.precision != Precision::default()).then_some(self.precision);
        let seed = (self.seed != 0).then_some(self.seed);
        CommandLine::of_this_program()
            .word(dataset)
            .path("--data", Some(&self.data))
            .flag("--augment", self.augment)
            .option("--epochs", self.epochs)
            .option("--batch-size", self.batch_size)
            .option("--lr", self.lr)
            .option("--steps", self.steps)
            .option("--device", device)
            .option("--precision", precision)
            .flag("--recompute", self.recompute)
            .option("--seed", seed)
            .path("--resume", Some(&folder.checkpoint()))
            .indented()
    }

    fn out(&self) -> PathBuf {
        match (&self.out, &self.resume) {
            (Some(out), _) => out.clone(),
            (None, Some(file)) => file.parent().unwrap_or(Path::new("")).to_path_buf(),
            (None, None) => OUT.into(),
        }
    }

    /// Images to train on, to choose the model by if it is not the last one, and to test it on.
    fn images(&self) -> Result<(InMemory, Option<InMemory>, InMemory), Box<dyn Error>> {
        let (mut train, test) = match self.dataset {
            Dataset::Cifar10 => cifar::cifar10(&self.data)?,
            Dataset::Cifar100 => cifar::cifar100(&self.data)?,
            Dataset::Svhn => svhn::train_and_test(&self.data)?,
        };
        let mut validation = None;
        if self.dataset == Dataset::Svhn {
            if train.len() <= HELD_OUT {
                let found = train.len();
                return Err(format!(
                    "{} has {found} images to train on, of which {HELD_OUT} are to be held out",
                    self.data.display()
                )
                .into());
            }
            let (held_out, rest) = train.split(HELD_OUT);
            (train, validation) = (rest, Some(held_out));
        }
        if self.augment {
            let fill = train.mean_colour();
            train = train.augmented(ShiftAndFlip::paper(fill))?;
        }
        Ok((train, validation, test))
    }
}

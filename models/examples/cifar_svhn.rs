//! Trains the paper's DenseNet-BC with L = 100 and k = 12 on CIFAR-10, CIFAR-100 or SVHN, by the
//! paper's settings (sections 4.1 and 4.2; Table 2).
//!
//! ```text
//! cargo run --example cifar_svhn -- cifar10 --data cifar-10-batches-bin --augment
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use densenet_models::shell::{CommandLine, Start, TrainingOptions, describe, exit_code};
use densenet_models::{
    DenseNetBC100K12, DenseNetBC100K12C100, DenseNetBC100K12C100Dropout, DenseNetBC100K12Dropout,
};
use densenet_runtime::data::{Dataset as _, InMemory, ShiftAndFlip, cifar, svhn};
use densenet_runtime::prelude::*;

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
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    training: TrainingOptions,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dataset {
    Cifar10,
    Cifar100,
    Svhn,
}

/// The number of SVHN's training images that the paper holds out to choose the model.
const HELD_OUT: usize = 6_000;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    exit_code(match (arguments.dataset, arguments.augment) {
        (Dataset::Cifar100, true) => run::<DenseNetBC100K12C100>(&arguments),
        (Dataset::Cifar100, false) => run::<DenseNetBC100K12C100Dropout>(&arguments),
        (_, true) => run::<DenseNetBC100K12>(&arguments),
        (_, false) => run::<DenseNetBC100K12Dropout>(&arguments),
    })
}

fn run<N: Network>(arguments: &Arguments) -> Result<Ending, Box<dyn Error>> {
    if arguments.dataset == Dataset::Svhn && arguments.augment {
        return Err("--augment is for CIFAR: the paper does not augment SVHN, and digits must not be mirrored; \
            leave it out"
            .into());
    }
    let options = &arguments.training;
    let ranks = Ranks::from_env()?;
    let paper = match arguments.dataset {
        Dataset::Svhn => Config::svhn(),
        Dataset::Cifar10 | Dataset::Cifar100 => Config::cifar(),
    };
    let config = options.config(paper, &ranks)?;
    let device = options.device(&ranks)?;
    let (train, validation, test) = arguments.images()?;
    TrainingOptions::check_batch(&config, train.len())?;
    let folder = options.folder("out/cifar_svhn")?;
    let held_out = validation.as_ref().unwrap_or(&test);
    describe((N::NAME, &N::PLAN), &config, &device, [&train, held_out]);

    let train = Loader::training(Arc::new(train), config.batch)?.among(&ranks)?;
    let train = train.seeded(config.seed);
    let evaluation = |images| Loader::evaluation(Arc::new(images), config.batch)?.among(&ranks);
    let test = evaluation(test)?;
    let validation = validation.map(evaluation).transpose()?;

    let model: N = arguments.start.model(&config)?;
    let mut trainer = Trainer::among(model, config, &device, &ranks)?;
    options.resume(&mut trainer)?;
    let best = folder.best();
    if let (Some(file), Some(_), Some(_)) = (options.checkpoint(), &validation, trainer.best())
        && trainer.writes()
    {
        folder.bring_best(file)?;
    }
    let fit = Fit {
        // On CIFAR the last model is tested, on SVHN the one with the lowest validation error.
        best: validation.is_some().then(|| best.clone()),
        ..options.fit(&folder)?
    };
    let mut observers = folder.observers(&trainer, N::NAME)?;
    let held_out = validation.as_ref().unwrap_or(&test);
    let summary = trainer.fit(&train, held_out, &fit, &mut observers)?;
    if summary.ending == Ending::Interrupted {
        options.say_how_to_go_on(arguments.line(), &summary, &folder, &ranks);
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
    /// The command with its own options.
    fn line(&self) -> CommandLine {
        let dataset = self.dataset.to_possible_value();
        let dataset = dataset.as_ref().map_or("", |value| value.get_name());
        CommandLine::of_this_program()
            .word(dataset)
            .path("--data", Some(&self.data))
            .flag("--augment", self.augment)
    }

    /// Images to train on, images to choose the model with (if it is not the last one), and images
    /// to test it on.
    fn images(&self) -> Result<(InMemory, Option<InMemory>, InMemory), Box<dyn Error>> {
        let (train, test) = match self.dataset {
            Dataset::Cifar10 => cifar::cifar10(&self.data)?,
            Dataset::Cifar100 => cifar::cifar100(&self.data)?,
            Dataset::Svhn => svhn::train_and_test(&self.data)?,
        };
        let normalization = self
            .start
            .normalization(&self.training, train.normalization())?;
        let mut train = train.normalized(normalization.clone());
        let test = test.normalized(normalization);
        let mut validation = None;
        if self.dataset == Dataset::Svhn {
            if train.len() <= HELD_OUT {
                let found = train.len();
                return Err(format!(
                    "{} has {found} images to train on, and {HELD_OUT} must be held out",
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

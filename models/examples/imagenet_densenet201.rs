//! Trains DenseNet-201 on pictures: your own, or a small drawn set.
//!
//! ```text
//! cargo run --example imagenet_densenet201
//! cargo run --example imagenet_densenet201 -- --data DIR --epochs 90 --batch-size 256 --lr 0.1
//! cargo run --example imagenet_densenet201 -- --resume out/imagenet_densenet201/checkpoint.safetensors
//! ```
//!
//! See `models/examples/README.md`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use densenet_models::DenseNet201;
use densenet_models::shell::{
    CommandLine, Start, TrainingOptions, describe, describe_left_out, exit_code,
};
use densenet_runtime::data::{Crops, Dataset, RandomResizedCrop, check_fit};
use densenet_runtime::prelude::*;
use densenet_runtime::train::{Evaluation, Summary};
use drawn_pictures::PictureSet;

const PICTURES: &str = "out/pictures";
const OUT: &str = "out/imagenet_densenet201";

/// Trains DenseNet-201 at 224x224.
#[derive(Parser)]
struct Arguments {
    /// Pictures: DIR/train/CLASS/* and DIR/val/CLASS/*, JPEG or PNG. Without it a small set is
    /// drawn, once.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Views of a picture whose logits are averaged in validation: its centre, or ten crops (paper,
    /// Table 3).
    #[arg(long, value_name = "1|10", default_value_t)]
    crops: Crops,
    #[command(flatten)]
    start: Start,
    #[command(flatten)]
    training: TrainingOptions,
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<Ending, Box<dyn Error>> {
    let options = &arguments.training;
    let ranks = Ranks::from_env()?;
    let config = options.config(arguments.settings(), &ranks)?;
    // The device comes first: if it is missing, this is reported before any work is done.
    let device = options.device(&ranks)?;
    let (train, val) = arguments.pictures()?;
    TrainingOptions::check_batch(&config, train.len())?;
    let folder = options.folder(OUT)?;
    describe(
        (DenseNet201::NAME, &DenseNet201::PLAN),
        &config,
        &device,
        [&train, &val],
    );
    describe_left_out("training", &train);
    describe_left_out("validation", &val);

    let title = format!("DenseNet-201, {} pictures", train.len());
    let train = Loader::training(Arc::new(train), config.batch)?.among(&ranks)?;
    let val = Loader::evaluation(Arc::new(val), config.piece())?.among(&ranks)?;
    let train = train.seeded(config.seed).on_broken(OnBroken::Skip);
    let val = val.on_broken(OnBroken::Skip);

    let model: DenseNet201 = arguments.start.model(&config)?;
    let mut trainer = Trainer::among(model, config, &device, &ranks)?;
    options.resume(&mut trainer)?;
    let fit = Fit {
        checkpoint_every: Some(500),
        ..options.fit(&folder)?
    };
    let mut observers = folder.observers(&trainer, &title)?;
    let summary = trainer.fit(&train, &val, &fit, &mut observers)?;

    match summary.evaluation {
        _ if summary.ending == Ending::Interrupted => {
            options.say_how_to_go_on(arguments.line(), &summary, &folder, &ranks);
        }
        Some(evaluation) => arguments.conclude(&summary, &evaluation, &folder),
        None => {
            say!("all steps of this run are already done; evaluating");
            arguments.conclude(&summary, &trainer.evaluate(&val)?, &folder);
        }
    }
    Ok(summary.ending)
}

impl Arguments {
    /// The settings of a new run.
    fn settings(&self) -> Config {
        match self.data {
            // The paper's learning rate is for its batch size.
            Some(_) => Config {
                batch: 64,
                schedule: Schedule::thirties(0.1 * 64.0 / 256.0),
                ..Config::imagenet()
            },
            None => Config {
                epochs: 2,
                batch: 16,
                // With a higher rate the loss of so small a batch jumps; with a lower one training
                // takes longer.
                schedule: Schedule::cosine(0.01, 0.2),
                // In so few steps, the running statistics of training lag behind the weights.
                precise_bn: 8,
                ..Config::imagenet()
            },
        }
    }

    /// Training and validation pictures.
    fn pictures(&self) -> Result<(ImageFolder, ImageFolder), Box<dyn Error>> {
        let dir = match &self.data {
            Some(dir) => dir.as_path(),
            None => {
                say!("drawing   pictures in {PICTURES}, unless they exist");
                drawn_pictures::make(PICTURES, &PictureSet::default())?;
                Path::new(PICTURES)
            }
        };
        let plan = DenseNet201::PLAN;
        let stem = plan.stem();
        let (mut train, val) = ImageFolder::train_and_val(dir, [stem.height, stem.width])?;
        if self.data.is_none() {
            // A small part may show none of the figures.
            train = train.cropped(RandomResizedCrop {
                area: (0.5, 1.0),
                ..RandomResizedCrop::default()
            });
        }
        check_fit(&train, [3, stem.height, stem.width], plan.classes())?;
        let normalization = self
            .start
            .normalization(&self.training, train.normalization())?;
        Ok((
            train.normalized(normalization.clone()),
            val.evaluated(self.crops).normalized(normalization),
        ))
    }

    /// The command with its own options.
    fn line(&self) -> CommandLine {
        let crops = (self.crops != Crops::default()).then_some(self.crops);
        CommandLine::of_this_program()
            .path("--data", self.data.as_deref())
            .option("--crops", crops)
    }

    fn conclude(&self, summary: &Summary, evaluation: &Evaluation, folder: &RunFolder) {
        let views = match self.crops {
            Crops::Centre => "centre crop",
            Crops::Ten => "ten crops",
        };
        say!(
            "\nvalidation after step {}: top-1 error {:.2}%, top-5 error {:.2}%, loss {:.4} ({} pictures, {views})",
            evaluation.step,
            100.0 * evaluation.top1_error(),
            100.0 * evaluation.top5_error(),
            evaluation.loss,
            evaluation.images,
        );
        if let Some(best) = summary.best {
            let error = 100.0 * best.score;
            say!("best: top-1 error {error:.2}% after step {}", best.step);
        }
        // If no step was left, a new folder has no checkpoint.
        let files = [folder.checkpoint(), folder.metrics(), folder.curves()];
        for file in files.iter().filter(|file| file.exists()) {
            say!("  {}", file.display());
        }
    }
}

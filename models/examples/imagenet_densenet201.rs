//! Trains DenseNet-201 on pictures: your own, or a small set that it draws.
//!
//! ```text
//! cargo run --example imagenet_densenet201
//! cargo run --example imagenet_densenet201 -- --data DIR --epochs 90 --batch-size 256 --lr 0.1
//! cargo run --example imagenet_densenet201 -- --resume out/imagenet_densenet201/checkpoint.safetensors
//! ```
//!
//! See `models/examples/README.md`.

mod shell;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use densenet_models::DenseNet201;
use densenet_runtime::cpu::{self, Level, Precision};
use densenet_runtime::data::{Crops as Crop, Dataset, ImageFolder, Loader, OnBroken, check_fit};
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::parallel::{Meeting, Place};
use densenet_runtime::plan::Recompute;
use densenet_runtime::train::{
    Config, Ending, Evaluation, Fit, Interrupt, RunFolder, Schedule, Summary, Trainer,
};
use densenet_runtime::{Device, DeviceChoice, Network, console, say, tell};
use drawn_pictures::Pictures;
use shell::CommandLine;

/// How long the processes of a run wait for each other at its start.
const PATIENCE: Duration = Duration::from_secs(300);
const PICTURES: &str = "out/pictures";
const OUT: &str = "out/imagenet_densenet201";

/// Trains DenseNet-201 at 224x224.
#[derive(Parser)]
struct Arguments {
    /// Pictures: DIR/train/CLASS/* and DIR/val/CLASS/*, JPEG or PNG. Without it a small set is
    /// drawn, once.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Passes over the training pictures [default: 90 with --data, else 4].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Stop when so many steps are done in all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Pictures of a step, on each rank [default: 64 with --data, else 8].
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// What computes: cpu, cuda (the first CUDA device), cuda:N, or best.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// Threads of the CPU, of each rank [default: OMP_NUM_THREADS, or else the cores divided by the
    /// ranks on this machine].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// In which numbers products are computed; sums and parameters are f32 [default: f32].
    #[arg(long, value_name = "f32|bf16")]
    precision: Option<Precision>,
    /// Computes the bottleneck maps again in the backward pass instead of keeping them: less memory,
    /// more time, the same numbers.
    #[arg(long)]
    recompute: bool,
    /// The learning rate at its highest [default: with --data 0.1 for 256 pictures a step, and in
    /// proportion; else 0.01].
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    lr: Option<f32>,
    /// Views of a picture whose logits are averaged in validation: its centre, or ten crops (paper,
    /// Table 3).
    #[arg(long, value_enum, default_value_t = Crops::One)]
    crops: Crops,
    /// Seeds the weights, and the order and the variation of the pictures [default: 0].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// A checkpoint to go on from, with its settings; `--lr` and `--epochs` change its schedule from
    /// there on.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Weights of the same network to start from: safetensors under torchvision's names, or a
    /// checkpoint.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    weights: Option<PathBuf>,
    /// Where checkpoint, metrics and curves go [default: the checkpoint's folder, or
    /// out/imagenet_densenet201].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Crops {
    #[value(name = "1")]
    One,
    #[value(name = "10")]
    Ten,
}

fn main() -> ExitCode {
    console::exit_code(run(&Arguments::parse()).map(|ending| match ending {
        Ending::Interrupted => ExitCode::from(130),
        _ => ExitCode::SUCCESS,
    }))
}

fn run(arguments: &Arguments) -> Result<Ending, Box<dyn Error>> {
    let place = Place::from_env()?;
    let (rank, ranks) = place
        .as_ref()
        .map_or((0, 1), |place| (place.rank, place.size));
    let config = arguments.config(ranks)?;
    // Asked for first: a device that is not there is said before anything is done.
    let device = match &place {
        Some(place) => arguments.device.open_for(place)?,
        None => arguments.device.open()?,
    };
    let (train, val) = arguments.data()?;
    let input = [
        3,
        DenseNet201::PLAN.stem().height,
        DenseNet201::PLAN.stem().width,
    ];
    check_fit(&train, input, DenseNet201::PLAN.classes())?;
    if config.batch > train.len() {
        let (batch, images) = (config.batch, train.len());
        return Err(format!(
            "a step of {batch} pictures is more than the {images} to train on; take --batch-size {images} or less"
        )
        .into());
    }
    let folder = RunFolder::create(arguments.out())?;
    if rank == 0 {
        describe(&config, &device, &train, &val);
    }

    let train = loader(
        Loader::training(Arc::new(train), config.batch)?.sharded(rank, ranks)?,
        config.seed,
    );
    let val = loader(
        Loader::evaluation(Arc::new(val), config.piece())?.sharded(rank, ranks)?,
        config.seed,
    );
    let mut model = Cpu::seed_from_u64(config.seed).build_module::<DenseNet201, f32>();
    if let Some(file) = &arguments.weights {
        model.load_weights(file)?;
    }
    let meeting = place
        .map(|place| {
            tell!(
                "rank {} of {} waits for the others at {}:{}, {} s at most",
                place.rank,
                place.size,
                place.master,
                place.port,
                PATIENCE.as_secs()
            );
            Meeting::join(place, PATIENCE)
        })
        .transpose()?;
    let executor = config.executor_among(DenseNet201::PLAN, &device, meeting)?;
    let mut trainer = Trainer::with_executor(model, config, executor)?;
    if let Some(file) = &arguments.resume {
        if arguments.lr.is_some() || arguments.epochs.is_some() {
            trainer.resume_with_schedule(file)?;
        } else {
            trainer.resume(file)?;
        }
        say!("resuming  {} at step {}", file.display(), trainer.steps());
    }
    say!("");

    let fit = Fit {
        steps: arguments.steps,
        // All ranks are equal: one of them writes.
        checkpoint: (rank == 0).then(|| folder.checkpoint()),
        checkpoint_every: Some(500),
        interrupt: Interrupt::on_ctrl_c()?,
        ..Fit::default()
    };
    let title = format!("DenseNet-201, {} pictures", train.dataset().len());
    let mut observers = match rank {
        0 => folder.observers(&trainer, &title)?,
        _ => Vec::new(),
    };
    let summary = trainer.fit(&train, &val, &fit, &mut observers)?;
    if rank > 0 {
        return Ok(summary.ending);
    }
    if summary.ending == Ending::Interrupted {
        let start = match ranks {
            1 => "to go on",
            _ => "to go on, start all ranks as before, each with",
        };
        say!("\ninterrupted at step {}; {start}:", summary.step);
        console::say_bytes(&arguments.how_to_resume(&folder));
    } else {
        let evaluation = match summary.evaluation {
            Some(evaluation) => evaluation,
            None => {
                say!("all steps of this run were done before; evaluating");
                trainer.evaluate(&val)?
            }
        };
        conclude(&summary, &evaluation, arguments.crops, &folder);
    }
    Ok(summary.ending)
}

impl Arguments {
    /// The settings: those of the checkpoint or the defaults, and then those given.
    fn config(&self, ranks: usize) -> Result<Config, Box<dyn Error>> {
        let mut config = match (&self.resume, &self.data) {
            (Some(file), _) => Config::of_checkpoint(file)?,
            (None, Some(_)) => Config {
                batch: 64,
                ..Config::imagenet()
            },
            (None, None) => Config {
                epochs: 4,
                batch: 8,
                // With more the loss of so small a batch jumps; with less it takes longer.
                schedule: Schedule::cosine(0.01, 0.5),
                ..Config::imagenet()
            },
        };
        if let Some(epochs) = self.epochs {
            config.epochs = epochs;
        }
        if let Some(batch) = self.batch_size {
            config.batch = batch;
        }
        if let Some(seed) = self.seed {
            config.seed = seed;
        }
        if let Some(precision) = self.precision {
            config.precision = precision;
        }
        if let Some(rate) = self.lr {
            config.schedule.rate = rate;
        } else if self.resume.is_none() && self.data.is_some() {
            // The paper's 0.1 is for 256 pictures; the rate goes with the batch.
            config.schedule.rate = 0.1 * (ranks * config.batch) as f32 / 256.0;
        }
        if self.recompute {
            config.recompute = Recompute::Bottlenecks;
        }
        config.threads = self.threads.map_or(0, usize::from);
        config.check()?;
        Ok(config)
    }

    fn out(&self) -> PathBuf {
        match (&self.out, &self.resume) {
            (Some(out), _) => out.clone(),
            (None, Some(file)) => file.parent().unwrap_or(Path::new(".")).to_path_buf(),
            (None, None) => OUT.into(),
        }
    }

    /// Training and validation pictures.
    fn data(&self) -> Result<(ImageFolder, ImageFolder), Box<dyn Error>> {
        let dir = match &self.data {
            Some(dir) => dir.as_path(),
            None => {
                let pictures = Pictures {
                    train: 20,
                    val: 6,
                    ..Pictures::default()
                };
                say!("drawing   pictures in {PICTURES}, unless they are there");
                drawn_pictures::make(PICTURES, &pictures)?;
                Path::new(PICTURES)
            }
        };
        let plan = DenseNet201::PLAN;
        let stem = plan.stem();
        let (train, val) = ImageFolder::train_and_val(dir, [stem.height, stem.width])?;
        let shown = match self.crops {
            Crops::One => Crop::Centre,
            Crops::Ten => Crop::TenCrop,
        };
        Ok((train, val.evaluated(shown)))
    }

    /// All that the checkpoint does not hold.
    fn how_to_resume(&self, folder: &RunFolder) -> Vec<u8> {
        let device = (self.device != DeviceChoice::Cpu).then_some(self.device);
        let crops = (self.crops == Crops::Ten).then_some(10);
        CommandLine::of_this_program()
            .path("--data", self.data.as_deref())
            .option("--device", device)
            .option("--threads", self.threads)
            .flag("--recompute", self.recompute)
            .option("--crops", crops)
            .option("--steps", self.steps)
            .path("--resume", Some(&folder.checkpoint()))
            .indented()
    }
}

fn loader(loader: Loader, seed: u64) -> Loader {
    loader
        .seeded(seed)
        .on_broken(OnBroken::Skip)
        .report(|broken| tell!("skipped: {}", broken.reason))
}

/// What computes, in words.
fn in_words(device: &Device, config: &Config) -> String {
    match device {
        Device::Cpu => {
            let threads = cpu::threads(config.threads);
            let level = Level::detect();
            format!(
                "CPU, {threads} threads, {level:?}, products in {:?}",
                config.precision
            )
        }
        device => format!("{device}, products in {:?}", config.precision),
    }
}

/// What is trained, on what, with what.
fn describe(config: &Config, device: &Device, train: &ImageFolder, val: &ImageFolder) {
    let plan = &DenseNet201::PLAN;
    let bytes = plan
        .training_footprint(config.recompute)
        .bytes(config.piece());
    say!(
        "network   {}: {} parameters, {} layers, {:.3} GMACs an image",
        DenseNet201::NAME,
        thousands(plan.parameter_count()),
        plan.depth(),
        plan.multiply_adds() as f64 / 1e9,
    );
    say!(
        "memory    {:.2} GiB for a training step of {} images",
        bytes as f64 / f64::from(1 << 30),
        config.piece(),
    );
    say!("device    {}", in_words(device, config));
    say!(
        "data      {} pictures to train on, {} to validate on, {} classes, shown at {}x{}",
        thousands(train.len()),
        thousands(val.len()),
        train.classes().len(),
        plan.stem().height,
        plan.stem().width,
    );
    for (set, folder) in [("training", train), ("validation", val)] {
        if !folder.left_out().is_empty() {
            say!("          left out of {set}: {}", left_out(folder));
        }
    }
    let classes = train.classes().len();
    if classes < plan.classes() {
        say!(
            "          the network tells {} classes apart; labels 0 to {} are used",
            plan.classes(),
            classes - 1,
        );
    }
    say!(
        "training  {} epochs, {} images a step, learning rate {}, seed {}",
        config.epochs,
        config.batch,
        config.schedule.rate,
        config.seed,
    );
}

/// `3 .webp, 1 without extension (JPEG and PNG are read)`.
fn left_out(folder: &ImageFolder) -> String {
    let kinds = folder.left_out().iter().map(|(extension, count)| {
        let count = thousands(*count);
        match extension.as_str() {
            "" => format!("{count} without extension"),
            extension => format!("{count} .{extension}"),
        }
    });
    let kinds: Vec<_> = kinds.collect();
    format!("{} (.jpg, .jpeg and .png are read)", kinds.join(", "))
}

fn conclude(summary: &Summary, evaluation: &Evaluation, crops: Crops, folder: &RunFolder) {
    let views = match crops {
        Crops::One => "centre crop",
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
        say!(
            "best: top-1 error {:.2}% after step {}",
            100.0 * best.top1_error,
            best.step
        );
    }
    // Where no step was left, a folder of its own has no checkpoint.
    let files = [folder.checkpoint(), folder.metrics(), folder.curves()];
    for file in files.iter().filter(|file| file.exists()) {
        say!("  {}", file.display());
    }
}

/// `20,013,928`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

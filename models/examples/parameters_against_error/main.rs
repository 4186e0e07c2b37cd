//! Trains plain DenseNets, B, C and BC of four sizes each on Fashion-MNIST, with one recipe, and
//! draws their errors against their parameters (paper, Fig. 4, left).
//!
//! ```text
//! apt-get install dataset-fashion-mnist
//! cargo run --release --example parameters_against_error -- --device cuda --precision bf16 --jobs 4
//! ```

mod networks;
mod results;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use densenet_models::shell::{Fashion, FashionRecipe, exit_code, thousands};
use densenet_runtime::cpu::{self, Precision};
use densenet_runtime::data::InMemory;
use densenet_runtime::prelude::*;
use densenet_runtime::train::{Evaluation, Observer, PlanTrainer, ProgressBar, TrainError};
use densenet_runtime::weights::State;

use networks::{One, networks};
use results::{Results, Trained};

/// Trains DenseNets of four kinds and four sizes each, and draws their errors against their
/// parameters. Networks whose results are already in the file are not trained again.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    fashion: Fashion,
    #[command(flatten)]
    recipe: FashionRecipe,
    /// Passes over the training images; the error after the last one counts.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// The number of images in a step; the learning rate is proportional to it.
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch_size: usize,
    /// The number of times that each network is trained, each time with another seed.
    #[arg(long, value_name = "N", default_value_t = 2)]
    seeds: u64,
    /// The device that computes: cpu, cuda (the first CUDA device), cuda:N, or best.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// The number format of products.
    #[arg(long, value_name = "f32|bf16", default_value_t = Precision::F32)]
    precision: Precision,
    /// The number of networks that are trained at a time; on a CUDA device small ones leave room for others.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Trains every N-th network, from the I-th on, so that several devices divide the work, each
    /// with a file of its own.
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    share: Share,
    /// The results, a line of JSON for each network; the picture is beside them.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "out/parameters_against_error.jsonl"
    )]
    out: PathBuf,
}

/// A part of the list of networks.
#[derive(Clone, Copy)]
struct Share {
    number: usize,
    of: usize,
}

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/').and_then(|(number, of)| {
            Some(Self {
                number: number.parse().ok()?,
                of: of.parse().ok()?,
            })
        });
        numbers
            .filter(|share| (1..=share.of).contains(&share.number))
            .ok_or("write it as 2/3, for the second of three shares")
    }
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<Ending, Box<dyn Error>> {
    let recipe = arguments.recipe();
    let results = Results::open(&arguments.out, &recipe)?;
    let all = networks(arguments.seeds)?;
    let count = all.len();
    let Share { number, of } = arguments.share;
    let own = all.into_iter().skip(number - 1).step_by(of);
    let left: Vec<One> = own.filter(|one| !results.has(one)).collect();
    say!("recipe    {recipe}");
    say!(
        "networks  {} to train, {} of {count} are in {}",
        left.len(),
        results.trained().len(),
        arguments.out.display(),
    );
    let results = Mutex::new(results);
    if !left.is_empty() && train_all(arguments, &left, &results)? == Ending::Interrupted {
        say!("\ninterrupted; the same command continues with the remaining networks");
        return Ok(Ending::Interrupted);
    }
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let picture = arguments.out.with_extension("png");
    results.conclude(&picture)?;
    say!("wrote {}", picture.display());
    Ok(Ending::Finished)
}

/// Trains networks, some at a time, and adds each outcome to the results.
fn train_all(
    arguments: &Arguments,
    left: &[One],
    results: &Mutex<Results>,
) -> Result<Ending, Box<dyn Error>> {
    let (train, test) = arguments.recipe.sets(&arguments.fashion)?;
    let sets = [Arc::new(train), Arc::new(test)];
    // The device comes first: if it is missing, this is reported once.
    let device = arguments.device.open()?;
    say!("device    {device}");
    let interrupt = Interrupt::on_ctrl_c()?;
    let next = AtomicUsize::new(0);
    // Threads return text: an error need not be one that can be sent.
    let job = || -> Result<Ending, String> {
        while let Some(one) = left.get(next.fetch_add(1, Ordering::Relaxed)) {
            let trained = train_one(arguments, one, &sets, &interrupt);
            let trained = trained.map_err(|error| format!("{one}: {error}"))?;
            let Some(trained) = trained else {
                return Ok(Ending::Interrupted);
            };
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            say!(
                "{one}: {} of {} wrong, {:.0} s",
                thousands(trained.mistakes()),
                thousands(trained.images),
                trained.seconds,
            );
            results.add(trained).map_err(|error| error.to_string())?;
        }
        Ok(Ending::Finished)
    };
    // If one job fails, the others stop.
    let job = || job().inspect_err(|_| interrupt.request());
    let endings: Vec<_> = std::thread::scope(|scope| {
        let jobs = usize::from(arguments.jobs).min(left.len());
        let jobs: Vec<_> = (0..jobs).map(|_| scope.spawn(job)).collect();
        jobs.into_iter().map(|job| job.join()).collect()
    });
    let mut whole = Ending::Finished;
    for ending in endings {
        match ending.map_err(|_| "a job panicked")?? {
            Ending::Finished => {}
            other => whole = other,
        }
    }
    Ok(whole)
}

/// Trains a network; `None` if that was interrupted.
fn train_one(
    arguments: &Arguments,
    one: &One,
    [train, test]: &[Arc<InMemory>; 2],
    interrupt: &Interrupt,
) -> Result<Option<Trained>, Box<dyn Error>> {
    let jobs = usize::from(arguments.jobs);
    let threads = (cpu::threads(0) / jobs).max(1);
    let recipe = &arguments.recipe;
    let config = Config {
        seed: one.seed,
        precision: arguments.precision,
        threads,
        ..recipe.settings(arguments.epochs, arguments.batch_size)
    };
    // Each job has a stream of its own on the device.
    let device = arguments.device.open()?;
    let batch = config.batch;
    let train = Loader::training(train.clone(), batch)?.seeded(one.seed);
    let train = train.workers(threads);
    let test = Loader::evaluation(test.clone(), batch)?.workers(threads);
    let start = State::initial(&one.plan, one.seed);
    let (name, plan) = (one.kind, one.plan.clone());
    let since = Instant::now();
    let mut trainer = PlanTrainer::among(name, plan, &start, config, &device, &Ranks::alone())?;
    let mut watch = Watch {
        curve: Vec::new(),
        progress: (jobs == 1).then(ProgressBar::new),
    };
    let fit = Fit {
        interrupt: interrupt.clone(),
        ..Fit::default()
    };
    let summary = trainer.fit(&train, &test, &fit, &mut watch)?;
    let (Ending::Finished, Some(last)) = (summary.ending, summary.evaluation) else {
        return Ok(None);
    };
    Ok(Some(Trained {
        kind: one.kind.to_string(),
        depth: one.plan.depth(),
        growth: networks::GROWTH,
        parameters: one.plan.parameter_count() as u64,
        multiply_adds: one.plan.multiply_adds(),
        seed: one.seed,
        recipe: arguments.recipe(),
        curve: watch.curve,
        images: last.images,
        seconds: since.elapsed().as_secs_f64(),
        device: device.to_string(),
    }))
}

impl Arguments {
    /// The recipe in words: results of others are not compared with its own.
    fn recipe(&self) -> String {
        let config = self.recipe.settings(self.epochs, self.batch_size);
        let mut words = format!(
            "{} epochs, {} images a step, one cycle with {} epochs up to {}, weight decay {}, label smoothing {}, {}",
            config.epochs,
            config.batch,
            config.schedule.warmup,
            config.schedule.learning_rate,
            config.weight_decay,
            config.label_smoothing,
            self.precision,
        );
        if self.recipe.erase > 0.0 {
            words += &format!(", {} erased", self.recipe.erase);
        }
        if let Some(decay) = config.ema {
            words += &format!(", average with decay {decay}");
        }
        if self.recipe.held_out > 0 {
            words += &format!(", {} images held out", self.recipe.held_out);
        }
        words
    }
}

/// Counts mistakes after each epoch.
struct Watch {
    curve: Vec<usize>,
    progress: Option<ProgressBar>,
}

impl Observer for Watch {
    fn begin(&mut self, outline: &densenet_runtime::train::Outline) -> Result<(), TrainError> {
        self.progress
            .iter_mut()
            .try_for_each(|bar| bar.begin(outline))
    }

    fn step(&mut self, report: &densenet_runtime::train::StepReport) -> Result<(), TrainError> {
        self.progress
            .iter_mut()
            .try_for_each(|bar| bar.step(report))
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        self.curve.push(evaluation.images - evaluation.top1);
        self.progress
            .iter_mut()
            .try_for_each(|bar| bar.evaluation(evaluation))
    }

    fn end(&mut self, summary: &densenet_runtime::train::Summary) -> Result<(), TrainError> {
        self.progress
            .iter_mut()
            .try_for_each(|bar| bar.end(summary))
    }
}

//! Trains a preset for a few steps on one batch and writes all results to a file, for a comparison
//! with other implementations: see `scripts/reference/torchvision_parity.py`.
//!
//! ```text
//! cargo run --release --example parity -- --model densenet201 \
//!     --weights IN.safetensors --batch BATCH.safetensors --steps 3 --lr 0.1 --out OUT.safetensors
//! ```
//!
//! IN holds weights and running statistics under torchvision's names; BATCH holds `images`
//! (float32, NCHW) and `labels` (int64). OUT then holds
//! - `losses`: the loss before each step,
//! - `logits_before` and `logits_after` the steps, with the running statistics,
//! - `grad.NAME`: the gradients of the first step,
//! - `NAME`: weights and running statistics after the steps.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use densenet_models::{PRESETS, preset};
use densenet_runtime::plan::Plan;
use densenet_runtime::train::Config;
use densenet_runtime::weights::{NamedTensor, State, TensorFile};
use densenet_runtime::{Arena, Batch, DeviceChoice, Executor, Pixels, Sgd, Step, console, say};

/// Steps of SGD on one batch: Nesterov momentum 0.9, weight decay 1e-4, no augmentation.
#[derive(Parser)]
struct Arguments {
    /// The network.
    #[arg(long, value_parser = PossibleValuesParser::new(PRESETS.iter().map(|p| p.name)))]
    model: String,
    /// Weights and running statistics at the start, under torchvision's names.
    #[arg(long, value_name = "IN.safetensors")]
    weights: PathBuf,
    /// `images`, float32 NCHW, and `labels`, int64.
    #[arg(long, value_name = "BATCH.safetensors")]
    batch: PathBuf,
    /// The number of steps.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// The learning rate.
    #[arg(long, value_name = "F")]
    lr: f32,
    /// The file for the results.
    #[arg(long, value_name = "OUT.safetensors")]
    out: PathBuf,
    /// The device that computes: cpu, cuda (the first CUDA device), cuda:N, or best.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// The number of threads; without it, one on each core.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
}

fn main() -> ExitCode {
    console::exit_code(run(&Arguments::parse()).map(|()| ExitCode::SUCCESS))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let plan = preset(&arguments.model)?.plan();
    let start = State::read(&plan, &arguments.weights)?;
    let (images, labels) = read_batch(&plan, &arguments.batch)?;
    let batch = Batch::of_classes(Pixels::Nchw(&images), &labels);
    let config = Config {
        threads: arguments.threads,
        batch: labels.len(),
        ..Config::imagenet()
    };
    let mut executor = config.executor(plan.clone(), &arguments.device.open()?)?;
    executor.write(Arena::Parameters, &start.parameters)?;
    executor.write(Arena::Running, &start.running)?;
    let results = train(&mut *executor, batch, arguments.steps, arguments.lr)?;
    results.write(&plan, &arguments.out)?;
    for (step, loss) in results.losses.iter().enumerate() {
        say!("step {}: loss {loss}", step + 1);
    }
    say!("wrote {}", arguments.out.display());
    Ok(())
}

/// Images and labels of a file, checked against the plan.
fn read_batch(plan: &Plan, path: &Path) -> Result<(Vec<f32>, Vec<u32>), Box<dyn Error>> {
    let file = TensorFile::read(path)?;
    let images = file.floats("images")?;
    let labels = file.integers("labels")?;
    let stem = plan.stem();
    let expected = [labels.len(), stem.channels, stem.height, stem.width];
    let found = file.shape("images").unwrap_or_default();
    if found != expected {
        let path = path.display();
        return Err(format!(
            "`images` in {path} has shape {found:?}; the network and the {} labels need \
                {expected:?}",
            labels.len()
        )
        .into());
    }
    let labels = labels
        .into_iter()
        .map(u32::try_from)
        .collect::<Result<_, _>>();
    let labels = labels.map_err(|_| format!("a label in {} is negative", path.display()))?;
    Ok((images, labels))
}

/// The results of the steps.
struct Results {
    losses: Vec<f32>,
    batch: usize,
    logits_before: Vec<f32>,
    logits_after: Vec<f32>,
    /// The gradients of the first step.
    gradients: Vec<f32>,
    end: State,
}

fn train(
    executor: &mut dyn Executor,
    batch: Batch<'_>,
    steps: u32,
    learning_rate: f32,
) -> Result<Results, Box<dyn Error>> {
    let sgd = Sgd {
        learning_rate,
        momentum: 0.9,
        weight_decay: 1e-4,
        nesterov: true,
    };
    let parameters = executor.plan().parameter_count();
    let mut results = Results {
        losses: Vec::new(),
        batch: batch.images(executor.plan()),
        logits_before: evaluate(executor, batch)?,
        logits_after: Vec::new(),
        gradients: vec![0.0; parameters],
        end: State {
            parameters: vec![0.0; parameters],
            running: vec![0.0; executor.plan().running_count()],
        },
    };
    for number in 0..steps {
        let step = Step {
            label_smoothing: 0.0,
            scale: 1.0,
            accumulate: false,
            seed: number.into(),
        };
        let outcome = executor.differentiate(batch, step)?;
        results.losses.push(outcome.loss as f32);
        if number == 0 {
            executor.read(Arena::Gradients, &mut results.gradients)?;
        }
        executor.descend(sgd.into())?;
    }
    executor.read(Arena::Parameters, &mut results.end.parameters)?;
    executor.read(Arena::Running, &mut results.end.running)?;
    results.logits_after = evaluate(executor, batch)?;
    Ok(results)
}

/// Logits with the running statistics.
fn evaluate(executor: &mut dyn Executor, batch: Batch<'_>) -> Result<Vec<f32>, Box<dyn Error>> {
    executor.evaluate(batch)?;
    let mut logits = vec![0.0; batch.images(executor.plan()) * executor.plan().classes()];
    executor.logits(&mut logits)?;
    Ok(logits)
}

impl Results {
    fn write(&self, plan: &Plan, path: &Path) -> Result<(), Box<dyn Error>> {
        let logits = [self.batch, plan.classes()];
        let mut tensors = vec![
            NamedTensor::new("losses", [self.losses.len()], &self.losses),
            NamedTensor::new("logits_before", logits, &self.logits_before),
            NamedTensor::new("logits_after", logits, &self.logits_after),
        ];
        let parameters = plan.parameters();
        for parameter in &parameters {
            let name = &parameter.torchvision;
            let shape = parameter.shape.as_slice();
            tensors.push(NamedTensor::new(
                name,
                shape,
                self.end.of_parameter(parameter),
            ));
            if parameter.role.is_trainable() {
                let gradient = &self.gradients[parameter.range()];
                tensors.push(NamedTensor::new(format!("grad.{name}"), shape, gradient));
            }
        }
        Ok(TensorFile::write(path, tensors, BTreeMap::new())?)
    }
}

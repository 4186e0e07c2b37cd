//! Times training steps or inference of a preset, or of a variant with another growth rate, other
//! layers or another input, and prints one line of JSON.
//!
//! ```text
//! cargo run --release --example bench -- --model densenet201 --mode train --batch 8 --steps 10
//! ```
//!
//! Training is forward, backward and the SGD step, on random images that are already in memory;
//! allocation and the first two steps, which load and record a device's kernels, are not counted.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use densenet_models::preset;
use densenet_models::shell::{Variant, check_batch, recompute};
use densenet_runtime::cpu::Precision;
use densenet_runtime::plan::{Plan, Role};
use densenet_runtime::train::{Config, Freeze};
use densenet_runtime::{
    Arena, Batch, Device, DeviceChoice, Executor, Frozen, Outcome, Pixels, Sgd, Step, Targets,
    console, cpu, say,
};
use rand::{RngExt, SeedableRng};
use serde_json::json;

/// The first step loads a device's kernels, and the second one records a graph of them.
const WARM_UP: u32 = 2;

#[derive(Parser)]
struct Arguments {
    /// A preset, such as densenet201 or cifar_bc_100_12.
    #[arg(long)]
    model: String,
    #[command(flatten)]
    variant: Variant,
    #[arg(long, value_enum, default_value = "train")]
    mode: Mode,
    /// The number of images in a step.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// The number format of products: f32 or bf16.
    #[arg(long, default_value_t)]
    precision: Precision,
    /// The number of steps that are timed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Recomputes the bottleneck maps instead of keeping them.
    #[arg(long)]
    recompute: bool,
    /// Parts that do not train, such as features (all but the classifier).
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    freeze: Vec<String>,
    /// The device that computes: cpu, cuda (the first CUDA device), cuda:N, or best.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// The number of CPU threads; 0 for OMP_NUM_THREADS, or else one on each core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Train,
    Infer,
}

/// The work that is timed.
enum Work {
    Train(Box<dyn Executor>),
    /// The frozen form.
    Infer(Box<Frozen>),
}

fn main() -> ExitCode {
    console::exit_code(run(&Arguments::parse()).map(|()| ExitCode::SUCCESS))
}

/// Refuses a step whose loss is not finite; its time would mean nothing.
fn finite(outcome: Outcome) -> Result<(), Box<dyn Error>> {
    if outcome.loss.is_finite() {
        return Ok(());
    }
    Err(format!("the loss is {}: these steps compute nothing", outcome.loss).into())
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if arguments.mode == Mode::Infer && (arguments.recompute || !arguments.freeze.is_empty()) {
        return Err("--recompute and --freeze are for --mode train".into());
    }
    let preset = preset(&arguments.model)?;
    let plan = arguments.variant.of(preset.plan())?;
    check_batch(&plan, preset.name, arguments.batch)?;
    let recompute = recompute(arguments.recompute);
    let precision = arguments.precision;
    let config = Config {
        batch: arguments.batch,
        threads: arguments.threads,
        recompute,
        precision,
        freeze: Freeze::parts(arguments.freeze.clone()),
        ..Config::imagenet()
    };
    let device = arguments.device.open()?;
    let mut rng = rand::rngs::StdRng::seed_from_u64(0);
    let parameters = initial(&plan, &mut rng);
    let mut work = match arguments.mode {
        Mode::Train => {
            let mut executor = config.executor(plan.clone(), &device)?;
            executor.write(Arena::Parameters, &parameters)?;
            // Which frozen stages normalise with.
            executor.write(Arena::Running, &unit_statistics(&plan))?;
            Work::Train(executor)
        }
        Mode::Infer => {
            let options = cpu::FrozenOptions {
                threads: arguments.threads,
                precision,
                ..cpu::FrozenOptions::for_batch(arguments.batch)
            };
            let running = unit_statistics(&plan);
            Work::Infer(Box::new(Frozen::on(
                &device,
                &plan,
                &parameters,
                &running,
                options,
            )?))
        }
    };
    drop(parameters);

    let stem = plan.stem();
    let len = arguments.batch * stem.channels * stem.height * stem.width;
    let images: Vec<f32> = (0..len).map(|_| rng.random_range(-2.0..2.0)).collect();
    // A device gets bytes, as from a loader.
    let bytes: Vec<u8> = match device {
        Device::Cpu => Vec::new(),
        _ => (0..len).map(|_| rng.random_range(0..=255)).collect(),
    };
    let norm = vec![0.5; stem.channels];
    let labels: Vec<u32> = (0..arguments.batch)
        .map(|_| rng.random_range(0..plan.classes() as u32))
        .collect();
    let mut milliseconds = Vec::new();
    // As in the trainer, the outcome of a device's step is read when the next step has started.
    let mut pending = None;
    for step in 0..arguments.steps + WARM_UP {
        let batch = Batch {
            pixels: match device {
                Device::Cpu => Pixels::Nchw(&images),
                _ => Pixels::Nhwc {
                    bytes: &bytes,
                    mean: &norm,
                    std: &norm,
                },
            },
            targets: Targets::Classes(&labels),
        };
        let start = Instant::now();
        match &mut work {
            Work::Train(executor) => {
                let started = executor.start(batch, Step::default())?;
                executor.descend(Sgd::default().into())?;
                if let Some(before) = pending.replace(started) {
                    finite(executor.finish(before)?)?;
                }
            }
            Work::Infer(frozen) => {
                frozen.infer(batch.pixels, arguments.batch)?;
            }
        }
        if step >= WARM_UP {
            milliseconds.push(start.elapsed().as_secs_f64() * 1e3 / arguments.batch as f64);
        }
    }
    if let (Work::Train(executor), Some(last)) = (&mut work, pending) {
        finite(executor.finish(last)?)?;
    }
    milliseconds.sort_by(f64::total_cmp);
    let median = milliseconds[milliseconds.len() / 2];
    // A multiply-add is two operations.
    let operations = 2.0
        * match arguments.mode {
            Mode::Train => config.step_multiply_adds(&plan)? as f64,
            Mode::Infer => plan.multiply_adds() as f64,
        };
    let planned = match &work {
        Work::Train(_) => config.bytes(&plan, &device)?,
        Work::Infer(frozen) => frozen.bytes(),
    };
    let threads = matches!(device, Device::Cpu).then(|| cpu::threads(arguments.threads));
    say!(
        "{}",
        json!({
            "model": preset.name,
            "mode": if arguments.mode == Mode::Train { "train" } else { "infer" },
            "growth": plan.blocks()[0].growth,
            "depth": plan.depth(),
            "input": [plan.stem().height, plan.stem().width],
            "batch": arguments.batch,
            "precision": precision.to_string(),
            "device": device.to_string(),
            "threads": threads,
            "recompute": arguments.recompute,
            "freeze": arguments.freeze,
            "ms_per_image": median,
            "best_ms_per_image": milliseconds[0],
            "gflops": operations / median / 1e6,
            "planned_mb": planned as f64 / f64::from(1 << 20),
            "peak_rss_mb": peak_rss_mb(),
        })
    );
    Ok(())
}

/// He's initialisation, and BN that changes nothing.
fn initial(plan: &Plan, rng: &mut rand::rngs::StdRng) -> Vec<f32> {
    let mut values = vec![0.0; plan.parameter_count()];
    for parameter in plan.parameters() {
        let bound = (6.0 / parameter.shape[1..].iter().product::<usize>() as f32).sqrt();
        if parameter.role.is_trainable() {
            values[parameter.range()].fill_with(|| match parameter.role {
                Role::NormScale => 1.0,
                Role::NormBias | Role::LinearBias => 0.0,
                _ => rng.random_range(-bound..bound),
            });
        }
    }
    values
}

/// Running means of 0 and variances of 1.
fn unit_statistics(plan: &Plan) -> Vec<f32> {
    let mut values = vec![0.0; plan.running_count()];
    for parameter in plan.parameters() {
        if parameter.role == Role::RunningVar {
            values[parameter.range()].fill(1.0);
        }
    }
    values
}

/// The most memory that this process has used, if the system tells.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}

//! `densenet info`: the shapes, counts and memory of a network before it runs.

use std::error::Error;
use std::path::Path;

use clap::Args;
use densenet_models::shell::thousands;
use densenet_models::{PRESETS, UnknownPreset};
use densenet_runtime::plan::{Plan, Precision, Recompute};
use densenet_runtime::{Outputs, cpu, cuda, say};
use densenet_spec::{ParsedSpec, in_words};

use crate::network::{self, Change, Choice, Input, of_preset};
use crate::saved::Saved;

/// The batches whose memory is shown.
const BATCHES: [usize; 5] = [1, 8, 32, 64, 256];

#[derive(Args)]
pub struct Arguments {
    /// A preset's name, a file of weights, or a network in the words of `densenet!`: 'blocks: [6,
    /// 12, 24, 16], k: 32, theta: 0.5, bottleneck, classes: 18'. Without a network, all presets are
    /// listed.
    #[arg(value_name = "PRESET|FILE|WORDS")]
    network: Option<String>,
    /// A size of the images that replaces the network's own: 224, 192x256, or 1x224x224 for grey ones.
    #[arg(long, value_name = "SIZE", requires = "network")]
    input: Option<Input>,
}

pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let Some(network) = &arguments.network else {
        presets();
        return Ok(());
    };
    let mut spec = named(network)?;
    if let Some(input) = arguments.input {
        spec = network::with(&spec, &[Change::Input(input)])?;
    }
    show(&spec);
    Ok(())
}

/// The network of a preset's name, of a file, or of words.
fn named(network: &str) -> Result<ParsedSpec, Box<dyn Error>> {
    match of_preset(network) {
        Ok(spec) => Ok(spec),
        Err(_) if Path::new(network).is_file() => {
            Ok(Saved::read(Path::new(network), &Choice::default())?.spec())
        }
        // A name alone is neither.
        Err(unknown) if unknown.is::<UnknownPreset>() && !network.contains([':', ',']) => {
            Err(unknown)
        }
        Err(_) => Ok(ParsedSpec::parse(network)?),
    }
}

fn presets() {
    say!(
        "{:24} {:>11}  {:>9}  {:>5}  input",
        "preset",
        "parameters",
        "GMACs",
        "depth"
    );
    for preset in PRESETS {
        let plan = preset.plan();
        let stem = plan.stem();
        say!(
            "{:24} {:>11}  {:>9.3}  {:>5}  {}x{}x{}",
            preset.name,
            thousands(plan.parameter_count()),
            plan.multiply_adds() as f64 / 1e9,
            plan.depth(),
            stem.channels,
            stem.height,
            stem.width,
        );
    }
}

fn show(spec: &ParsedSpec) {
    let plan = &spec.plan;
    let stem = plan.stem();
    say!("{}", spec.name);
    if let Some(keys) = spec.keys() {
        say!("{}", keys.join(", "));
    }
    say!(
        "\n{} layers, {} parameters, {:.3} GMACs for an image of {}x{}x{}\n",
        plan.depth(),
        thousands(plan.parameter_count()),
        plan.multiply_adds() as f64 / 1e9,
        stem.channels,
        stem.height,
        stem.width,
    );
    say!("{}", plan.to_string().trim_end());
    memory(plan);
}

/// The memory of each way to run a network: on the CPU in f32, and on a CUDA device.
fn memory(plan: &Plan) {
    table("CPU, f32", |batch, own| on_cpu(plan, batch, own));
    for precision in [Precision::F32, Precision::Bf16] {
        let heading = format!("CUDA, {precision}");
        table(&heading, |batch, own| on_cuda(plan, batch, own, precision));
    }
}

/// What a network has memory for.
#[derive(Clone, Copy)]
enum Use {
    Training(Recompute),
    Frozen(Outputs),
}

/// The bytes of each batch for each use, up to the largest batch whose pixels kernels can count.
fn table(heading: &str, bytes: impl Fn(usize, Use) -> Option<u64>) {
    say!(
        "\nmemory, {heading:11} {:>12}  {:>12}  {:>12}  {:>12}",
        "training",
        "--recompute",
        "frozen",
        "with maps"
    );
    // With maps: of one class, the last ones, and those that leave each block.
    let uses = [
        Use::Training(Recompute::Nothing),
        Use::Training(Recompute::Bottlenecks),
        Use::Frozen(Outputs::default()),
        Use::Frozen(Outputs::all(1)),
    ];
    for batch in BATCHES {
        let cells: Option<Vec<_>> = uses.iter().map(|&own| bytes(batch, own)).collect();
        let Some(cells) = cells else {
            break;
        };
        let cells = cells
            .iter()
            .map(|&bytes| format!("{:>12}", in_words(bytes)));
        say!("batch {batch:<13} {}", cells.collect::<Vec<_>>().join("  "));
    }
}

fn on_cpu(plan: &Plan, batch: usize, own: Use) -> Option<u64> {
    match own {
        Use::Training(recompute) => Some(plan.training_footprint(recompute).bytes(batch)),
        Use::Frozen(outputs) => {
            let options = cpu::FrozenOptions {
                outputs,
                ..cpu::FrozenOptions::for_batch(batch)
            };
            cpu::Frozen::bytes_of(plan, options)
        }
    }
}

/// Compiled kernels and the driver's own memory come on top.
fn on_cuda(plan: &Plan, batch: usize, own: Use, precision: Precision) -> Option<u64> {
    match own {
        Use::Training(recompute) => {
            let options = cuda::CudaOptions {
                precision,
                recompute,
                ..cuda::CudaOptions::for_batch(batch)
            };
            let is_countable = batch <= plan.countable_batch();
            is_countable.then(|| options.bytes(plan) as u64)
        }
        Use::Frozen(outputs) => {
            let options = cuda::FrozenOptions {
                precision,
                outputs,
                ..cuda::FrozenOptions::for_batch(batch)
            };
            cuda::Frozen::bytes_of(plan, &options)
        }
    }
}

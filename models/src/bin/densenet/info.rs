//! `densenet info`: the shapes, counts and memory of a network before it runs.

use std::error::Error;
use std::path::Path;

use clap::Args;
use densenet_models::shell::thousands;
use densenet_models::{PRESETS, UnknownPreset};
use densenet_runtime::cpu::{Frozen, FrozenOptions};
use densenet_runtime::plan::{Plan, Recompute};
use densenet_runtime::{Outputs, say};
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

/// The memory of each way to run a network, on the CPU and in f32.
fn memory(plan: &Plan) {
    let [kept, recomputed] =
        [Recompute::Nothing, Recompute::Bottlenecks].map(|mode| plan.training_footprint(mode));
    say!(
        "\nmemory, f32  {:>12}  {:>12}  {:>12}  {:>12}",
        "training",
        "--recompute",
        "frozen",
        "with maps"
    );
    for batch in BATCHES {
        // With maps: of one class, the last ones, and those that leave each block.
        let frozen = [Outputs::default(), Outputs::all(1)].map(|outputs| {
            let options = FrozenOptions {
                outputs,
                ..FrozenOptions::for_batch(batch)
            };
            Frozen::bytes_of(plan, options)
        });
        let [Some(frozen), Some(maps)] = frozen else {
            // A batch with more pixels than kernels can count.
            break;
        };
        let [kept, recomputed, frozen, maps] =
            [kept.bytes(batch), recomputed.bytes(batch), frozen, maps].map(in_words);
        say!("batch {batch:<5}  {kept:>12}  {recomputed:>12}  {frozen:>12}  {maps:>12}");
    }
}

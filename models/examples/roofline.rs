//! The traffic and operations of a training step on a CUDA device, and the least time that they
//! take on a card: a bound from its data sheet, not a measurement. Needs no CUDA.
//!
//! ```text
//! cargo run --example roofline -- --model densenet201 --batch 256 --card h100 --precision bf16
//! ```

use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use densenet_models::shell::{Variant, check_batch, recompute};
use densenet_models::{PRESETS, preset};
use densenet_runtime::cpu::Precision;
use densenet_runtime::cuda::{self, Card, Launch, Listing, cards};
use densenet_runtime::{console, say};
use serde_json::json;

/// Bytes and operations of a training step, kernel by kernel, and their least time.
#[derive(Parser)]
struct Arguments {
    /// The network.
    #[arg(long, value_parser = PossibleValuesParser::new(PRESETS.iter().map(|p| p.name)))]
    model: String,
    #[command(flatten)]
    variant: Variant,
    /// The number of images in a step.
    #[arg(long, default_value_t = 256)]
    batch: usize,
    /// The card.
    #[arg(long, default_value = "h100",
        value_parser = PossibleValuesParser::new(cards().iter().map(|card| card.name)))]
    card: String,
    /// The number format of products.
    #[arg(long, default_value_t = Precision::Bf16)]
    precision: Precision,
    /// Recomputes the bottleneck maps of the first blocks instead of keeping them.
    #[arg(long)]
    recompute: bool,
    /// Lists each launch, not only the sums.
    #[arg(long)]
    launches: bool,
    /// Prints each launch as a line of JSON, and nothing else.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    console::exit_code(run(&Arguments::parse()).map(|()| ExitCode::SUCCESS))
}

/// The sums of a group of launches.
#[derive(Clone, Copy, Default)]
struct Sum {
    launches: usize,
    reads: u64,
    writes: u64,
    operations: u64,
    memory: f64,
    compute: f64,
    seconds: f64,
}

impl Sum {
    fn of<'a>(launches: impl Iterator<Item = &'a Launch>, card: &Card) -> Self {
        launches.fold(Self::default(), |sum, launch| {
            let roof = launch.roof(card);
            Self {
                launches: sum.launches + 1,
                reads: sum.reads + launch.reads,
                writes: sum.writes + launch.writes,
                operations: sum.operations + launch.operations,
                memory: sum.memory + roof.memory,
                compute: sum.compute + roof.compute,
                seconds: sum.seconds + roof.seconds(),
            }
        })
    }

    fn print(&self, family: &str, kernel: &str) {
        say!(
            "| {family:<10} | {kernel:<26} | {:>8} | {:>8.3} | {:>8.3} | {:>8.3} | {:>8.3} | {:>8.3} | {:>8.3} |",
            self.launches,
            self.reads as f64 / 1e9,
            self.writes as f64 / 1e9,
            self.operations as f64 / 1e12,
            self.memory * 1e3,
            self.compute * 1e3,
            self.seconds * 1e3,
        );
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let plan = arguments.variant.of(preset(&arguments.model)?.plan())?;
    let card = cards().iter().find(|card| card.name == arguments.card);
    let card = card.ok_or("no such card")?;
    let precision = arguments.precision;
    let recompute = recompute(arguments.recompute);
    let batch = arguments.batch;
    check_batch(&plan, &arguments.model, batch)?;
    if arguments.json {
        return print_json(&cuda::listing(&plan, batch, precision, recompute)?, card);
    }
    let launches = cuda::launches(&plan, batch, precision, recompute)?;
    say!(
        "{}, {batch} images, products in {precision}, on {}: {} TB/s, {} TFLOP/s bf16, {} f32\n",
        arguments.model,
        card.name,
        card.bandwidth / 1e12,
        card.bf16 / 1e12,
        card.f32 / 1e12,
    );
    say!(
        "| family     | kernel                     | launches |  GB read |  written |    TFLOP | ms moved | computed |  at best |"
    );
    say!("|---|---|---:|---:|---:|---:|---:|---:|---:|");
    if arguments.launches {
        for launch in &launches {
            Sum::of(std::iter::once(launch), card).print(launch.family, launch.kernel);
        }
    }
    let mut kinds: Vec<_> = launches
        .iter()
        .map(|one| (one.family, one.kernel))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    for &(family, kernel) in &kinds {
        let own = |one: &&Launch| (one.family, one.kernel) == (family, kernel);
        Sum::of(launches.iter().filter(own), card).print(family, kernel);
    }
    let mut families: Vec<_> = kinds.iter().map(|&(family, _)| family).collect();
    families.dedup();
    for family in families {
        let own = |one: &&Launch| one.family == family;
        Sum::of(launches.iter().filter(own), card).print(family, "(all)");
    }
    let all = Sum::of(launches.iter(), card);
    all.print("(all)", "");

    let each = |bytes: u64| bytes as f64 / 1e6 / batch as f64;
    say!(
        "\n{:.1} MB moved an image, {:.2} GFLOP; at best {:.3} ms a step, {:.0} images/s",
        each(all.reads + all.writes),
        all.operations as f64 / 1e9 / batch as f64,
        all.seconds * 1e3,
        batch as f64 / all.seconds,
    );
    let eager = cuda::eager(&plan, batch, precision);
    say!(
        "eager PyTorch moves at least {:.1} MB an image ({:.1} to concatenate, {:.1} for BN and ReLU, {:.1} in convolutions, {:.1} in pools and head, {:.1} in SGD): {:.1} ms on this card",
        each(eager.bytes()),
        each(eager.concatenation),
        each(eager.normalisation),
        each(eager.convolution),
        each(eager.rest),
        each(eager.descent),
        eager.bytes() as f64 / card.bandwidth * 1e3,
    );
    Ok(())
}

/// A line for each launch. Its stage is the number of its program (a block or a transition) among
/// those of its family, in the order of a step.
fn print_json(listing: &Listing, card: &Card) -> Result<(), Box<dyn std::error::Error>> {
    let mut programs: Vec<(&str, &[String])> = Vec::new();
    for listed in &listing.launches {
        let (cost, own) = (&listed.cost, listed.constants.as_slice());
        if !programs.contains(&(cost.family, own)) {
            programs.push((cost.family, own));
        }
        let family = programs.iter().filter(|(family, _)| *family == cost.family);
        let stage = family.take_while(|(_, constants)| *constants != own);
        say!(
            "{}",
            json!({
                "kernel": cost.kernel,
                "family": cost.family,
                "stage": 1 + stage.count(),
                "grid": listed.grid,
                "reads": cost.reads,
                "writes": cost.writes,
                "operations": cost.operations,
                "seconds": cost.roof(card).seconds(),
            })
        );
        console::check()?;
    }
    Ok(())
}

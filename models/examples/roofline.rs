//! What a training step on a CUDA device moves and computes, and the least time that this takes
//! on a card: a bound from its data sheet, not a measurement. Needs no CUDA.
//!
//! ```text
//! cargo run --example roofline -- --model densenet201 --batch 256 --card h100 --precision bf16
//! ```

use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use densenet_models::shell::{check_batch, recompute};
use densenet_models::{PRESETS, preset};
use densenet_runtime::cpu::Precision;
use densenet_runtime::cuda::{self, Card, Launch, cards};
use densenet_runtime::{console, say};

/// Bytes and operations of a training step, kernel by kernel, and the time they take at best.
#[derive(Parser)]
struct Arguments {
    /// The network.
    #[arg(long, value_parser = PossibleValuesParser::new(PRESETS.iter().map(|p| p.name)))]
    model: String,
    /// The number of images in a step.
    #[arg(long, default_value_t = 256)]
    batch: usize,
    /// The card.
    #[arg(long, default_value = "h100",
        value_parser = PossibleValuesParser::new(cards().iter().map(|card| card.name)))]
    card: String,
    /// The type of numbers that products are computed in.
    #[arg(long, default_value_t = Precision::Bf16)]
    precision: Precision,
    /// Recomputes the bottleneck maps of the first blocks instead of keeping them.
    #[arg(long)]
    recompute: bool,
    /// Lists each launch, not only the sums.
    #[arg(long)]
    launches: bool,
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
    let plan = preset(&arguments.model)?.plan();
    let card = cards().iter().find(|card| card.name == arguments.card);
    let card = card.ok_or("no such card")?;
    let precision = arguments.precision;
    let recompute = recompute(arguments.recompute);
    let batch = arguments.batch;
    check_batch(&plan, &arguments.model, batch)?;
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

//! Draws errors on ImageNet against parameters and multiply-adds, for DenseNets, ResNets (paper,
//! Fig. 3), and your own networks.
//!
//! ```text
//! cargo run --example efficiency -- --own densenet121=26.3 --out efficiency.png
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use densenet_models::{UnknownPreset, preset};
use densenet_runtime::figures::{Efficiency, Measured};
use densenet_runtime::{console, say};

/// Top-1 errors of the paper's networks, one crop (Table 3).
const PAPER: [(&str, f64); 4] = [
    ("densenet121", 25.02),
    ("densenet169", 23.80),
    ("densenet201", 22.58),
    ("densenet264", 22.15),
];

/// Depth, parameters, multiply-adds (torchvision's) and one-crop top-1 errors of the ResNets that
/// the paper compares with: those of fb.resnet.torch, whose recipe it follows.
const RESNETS: [(&str, u64, u64, f64); 4] = [
    ("34", 21_797_672, 3_660_000_000, 26.73),
    ("50", 25_557_032, 4_089_000_000, 24.01),
    ("101", 44_549_160, 7_801_000_000, 22.44),
    ("152", 60_192_808, 11_514_000_000, 22.16),
];

/// Draws top-1 errors on ImageNet against the cost of networks.
#[derive(Parser)]
struct Arguments {
    /// A network of your own: a preset and its top-1 error in percent, as densenet121=26.3.
    #[arg(long, value_name = "PRESET=ERROR", value_parser = own)]
    own: Vec<(String, f64)>,
    /// The picture.
    #[arg(long, value_name = "PNG", default_value = "efficiency.png")]
    out: PathBuf,
}

fn own(text: &str) -> Result<(String, f64), String> {
    let (name, error) = text
        .split_once('=')
        .ok_or("write a preset and its error, as densenet121=26.3")?;
    match error.trim_end_matches('%').parse() {
        Ok(error) if (0.0..=100.0).contains(&error) => Ok((name.to_string(), error)),
        _ => Err(format!(
            "the error must be from 0 to 100 percent, found {error:?}"
        )),
    }
}

fn main() -> ExitCode {
    console::exit_code(run(&Arguments::parse()).map(|()| ExitCode::SUCCESS))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let dense = PAPER.iter().map(|&(name, error)| measured(name, error));
    let resnets = RESNETS
        .iter()
        .map(|&(depth, parameters, multiply_adds, error)| Measured {
            name: depth.to_string(),
            parameters,
            multiply_adds,
            error,
        });
    let mut figure = Efficiency::default()
        .with("DenseNet (paper)", dense.collect::<Result<_, _>>()?)
        .with("ResNet", resnets.collect());
    if !arguments.own.is_empty() {
        let own = arguments.own.iter();
        let own = own.map(|(name, error)| measured(name, *error));
        figure = figure.with("own", own.collect::<Result<_, _>>()?);
    }
    figure.draw(
        &arguments.out,
        "ImageNet: error against cost",
        "top-1 error, one crop (%)",
    )?;
    say!("wrote {}", arguments.out.display());
    Ok(())
}

/// A preset with its error; its name is its depth, if it has one.
fn measured(name: &str, error: f64) -> Result<Measured, UnknownPreset> {
    let short = name.strip_prefix("densenet").unwrap_or(name);
    Ok(Measured::of(short, &preset(name)?.plan(), error))
}

//! Draws which features the layers of a trained network read (paper, Fig. 5).
//!
//! ```text
//! cargo run --example feature_reuse -- --model densenet201 \
//!     --weights out/imagenet_densenet201/checkpoint.safetensors --out reuse.png
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use densenet_models::preset;
use densenet_runtime::figures::FeatureReuse;
use densenet_runtime::weights::State;
use densenet_runtime::{console, say};

/// Draws the mean absolute weight with which each layer of a dense block reads each layer before.
#[derive(Parser)]
struct Arguments {
    /// A preset, such as densenet201 or cifar_40_12, which the paper draws.
    #[arg(long)]
    model: String,
    /// A checkpoint, or weights under torchvision's names.
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// The picture.
    #[arg(long, value_name = "PNG", default_value = "feature_reuse.png")]
    out: PathBuf,
}

fn main() -> ExitCode {
    console::exit_code(run(&Arguments::parse()).map(|()| ExitCode::SUCCESS))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let preset = preset(&arguments.model)?;
    let plan = preset.plan();
    let state = State::read(&plan, &arguments.weights)?;
    let title = format!(
        "{}: mean absolute weight from source to target",
        preset.network
    );
    FeatureReuse::of(&plan, &state)?.draw(&arguments.out, &title)?;
    say!("wrote {}", arguments.out.display());
    Ok(())
}

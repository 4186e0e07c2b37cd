//! Draws which features the layers of a trained network read (paper, Fig. 5).
//!
//! ```text
//! cargo run --example feature_reuse -- --weights out/imagenet_densenet201/checkpoint.safetensors
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use densenet_models::preset;
use densenet_runtime::figures::FeatureReuse;
use densenet_runtime::weights::{State, TensorFile, Unexpected, plan_of};
use densenet_runtime::{console, say};

/// Draws the mean absolute weight with which each layer of a dense block reads each earlier layer.
#[derive(Parser)]
struct Arguments {
    /// The preset of the weights, such as cifar_40_12, which the paper draws [default: the network
    /// whose tensors have their shapes].
    #[arg(long, value_name = "PRESET")]
    model: Option<String>,
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
    let preset = arguments.model.as_deref().map(preset).transpose()?;
    let file = TensorFile::read(&arguments.weights)?;
    let (name, plan) = match preset {
        Some(preset) => (preset.network.to_string(), preset.plan()),
        None => {
            let plan = plan_of(&file, None)?;
            (format!("DenseNet of {} layers", plan.depth()), plan)
        }
    };
    let state = State::from_file(&plan, &file, Unexpected::default())?;
    let title = format!("{name}: mean absolute weight from source to target");
    FeatureReuse::of(&plan, &state)?.draw(&arguments.out, &title)?;
    say!("wrote {}", arguments.out.display());
    Ok(())
}

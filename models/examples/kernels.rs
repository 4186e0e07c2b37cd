//! Prints the CUDA programs of presets as they are passed to NVRTC, one JSON object on each line.
//! `scripts/cuda/compile.py` compiles them without a card.
//!
//! ```text
//! cargo run --example kernels -- densenet201 cifar_bc_100_12
//! ```
//!
//! Without names, it prints those of all presets.

use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use densenet_models::PRESETS;
use densenet_runtime::cpu::Precision;
use densenet_runtime::{console, cuda, say};
use serde_json::json;

/// Prints the CUDA programs of presets.
#[derive(Parser)]
struct Arguments {
    /// The networks; all without this argument.
    #[arg(value_parser = PossibleValuesParser::new(PRESETS.iter().map(|p| p.name)))]
    models: Vec<String>,
}

fn main() -> ExitCode {
    console::exit_code(print(&Arguments::parse()).map(|()| ExitCode::SUCCESS))
}

fn print(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let asked = |name: &str| arguments.models.iter().any(|model| model == name);
    let presets = PRESETS.iter();
    for preset in presets.filter(|preset| arguments.models.is_empty() || asked(preset.name)) {
        for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
            for program in cuda::programs(&preset.plan(), precision)? {
                let line = json!({
                    "model": preset.name,
                    "precision": name,
                    "family": program.family,
                    "constants": program.constants,
                    "source": program.source,
                });
                say!("{line}");
                console::check()?;
            }
        }
    }
    Ok(())
}

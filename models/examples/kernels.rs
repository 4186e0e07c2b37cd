//! Prints the CUDA programs of presets as they are passed to NVRTC, one JSON object on each line,
//! and with `--batch` their launches. `scripts/cuda/compile.py` compiles them without a card,
//! `scripts/cuda/check_ptx` runs them.
//!
//! ```text
//! cargo run --example kernels -- densenet201 cifar_bc_100_12
//! cargo run --example kernels -- densenet201 --growth 4 --layers 3,2 --input 33x45 --batch 2
//! ```
//!
//! Without names, it prints those of all presets.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use densenet_models::PRESETS;
use densenet_models::shell::{Variant, check_batch};
use densenet_runtime::cpu::Precision;
use densenet_runtime::cuda::{Listed, Program, Value};
use densenet_runtime::{console, cuda, say};
use serde_json::json;

/// Prints the CUDA programs of presets.
#[derive(Parser)]
struct Arguments {
    /// The networks [default: all].
    #[arg(value_parser = PossibleValuesParser::new(PRESETS.iter().map(|p| p.name)))]
    models: Vec<String>,
    #[command(flatten)]
    variant: Variant,
    /// Also prints the launches of a step with this many images, and all other kinds of launches.
    #[arg(long, value_name = "IMAGES")]
    batch: Option<usize>,
}

fn main() -> ExitCode {
    console::exit_code(print(&Arguments::parse()).map(|()| ExitCode::SUCCESS))
}

fn print(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let asked = |name: &str| arguments.models.iter().any(|model| model == name);
    let presets = PRESETS.iter();
    for preset in presets.filter(|preset| arguments.models.is_empty() || asked(preset.name)) {
        let plan = arguments.variant.of(preset.plan())?;
        for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
            let programs = cuda::programs(&plan, precision)?;
            for program in &programs {
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
            let Some(batch) = arguments.batch else {
                continue;
            };
            check_batch(&plan, preset.name, batch)?;
            let listing = cuda::everything(&plan, batch, precision)?;
            let launches = listing.launches.iter();
            let line = json!({
                "model": preset.name,
                "precision": name,
                "batch": batch,
                "buffers": listing.buffers,
                "weight_table": listing.weight_table,
                "launches": launches.map(|one| launch(one, &programs)).collect::<Vec<_>>(),
            });
            say!("{line}");
            console::check()?;
        }
    }
    Ok(())
}

/// A launch; `program` is the number of its program among those printed before it. A pointer is a
/// buffer and an offset in bytes.
fn launch(listed: &Listed, programs: &[Program]) -> serde_json::Value {
    let family = listed.cost.family;
    let program = programs
        .iter()
        .position(|own| own.family == family && own.constants == listed.constants);
    let arguments = listed
        .arguments
        .iter()
        .map(|argument| match argument.value {
            Value::Int(value) => json!([argument.name, argument.of, value]),
            Value::At { buffer, offset } => json!([argument.name, argument.of, buffer, offset]),
        });
    json!({
        "kernel": listed.cost.kernel,
        "program": program,
        "grid": listed.grid,
        "threads": listed.threads,
        "shared": listed.shared,
        "arguments": arguments.collect::<Vec<_>>(),
    })
}

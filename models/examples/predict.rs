//! Prints the five likeliest classes of pictures.
//!
//! ```text
//! cargo run --example predict -- --weights out/imagenet_densenet201/checkpoint.safetensors cat.jpg
//! cargo run --example predict -- --model densenet121 --weights densenet121-a639ec97.pth \
//!     --classes imagenet_classes.txt cat.jpg dog.png
//! ```
//!
//! Pictures are preprocessed as in validation: the short side is resized to 256, the centre is
//! cropped, and the pixels are normalised with the mean and standard deviation of the weights'
//! training, or else ImageNet's.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use densenet_models::shell::normalization_for;
use densenet_models::{PRESETS, preset};
use densenet_runtime::cpu::{Frozen, FrozenOptions, Precision};
use densenet_runtime::data::{self, Crops, DataError, Normalization};
use densenet_runtime::plan::{Plan, StemKind};
use densenet_runtime::weights::{State, TensorFile, Unexpected};
use densenet_runtime::{console, say, tell};

/// The number of classes that are printed.
const BEST: usize = 5;

/// Classifies pictures.
#[derive(Parser)]
struct Arguments {
    /// One of the presets for ImageNet, such as densenet121.
    #[arg(long, default_value = "densenet201")]
    model: String,
    /// A checkpoint, or weights under torchvision's names: safetensors or PyTorch's own format.
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// The names of the classes, one on each line [default: those in the weights].
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// The number format of products: f32 or bf16.
    #[arg(long, default_value_t)]
    precision: Precision,
    /// JPEG or PNG files.
    #[arg(required = true, value_name = "PICTURE")]
    pictures: Vec<PathBuf>,
}

fn main() -> ExitCode {
    console::exit_code(run(&Arguments::parse()).map(|()| ExitCode::SUCCESS))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let plan = plan(&arguments.model)?;
    // A checkpoint has momentum, too.
    let file = TensorFile::read(&arguments.weights)?;
    let state = State::from_file(&plan, &file, Unexpected::Ignore)?;
    let names = match &arguments.classes {
        Some(names) => lines(names)?,
        None => file.classes()?,
    };
    let normalization = normalization_for(&file, &Normalization::imagenet())?;
    drop(file);
    let options = FrozenOptions {
        precision: arguments.precision,
        ..FrozenOptions::for_batch(1)
    };
    let mut network = Frozen::new(&plan, &state.parameters, &state.running, options)?;
    let mut unread = 0;
    for path in &arguments.pictures {
        let bytes = match shown(path, [plan.stem().height, plan.stem().width]) {
            Ok(bytes) => bytes,
            Err(error) => {
                tell!("error: {error}");
                unread += 1;
                continue;
            }
        };
        let pixels = normalization.pixels(&bytes);
        let likely = likeliest(network.infer(pixels, 1)?, &names);
        say!("{}", path.display());
        for (class, probability) in likely {
            let percent = 100.0 * probability;
            match names.get(class) {
                Some(name) => say!("  {percent:6.2}%  {name}"),
                None => say!("  {percent:6.2}%  class {class}"),
            }
        }
        // The output is closed, so nothing is left to do.
        if console::check().is_err() {
            break;
        }
    }
    match (unread, arguments.pictures.len()) {
        (0, _) => Ok(()),
        (1, 1) => Err("the picture could not be read".into()),
        (unread, all) => Err(format!("{unread} of {all} pictures could not be read").into()),
    }
}

/// A picture as validation shows it.
fn shown(path: &Path, [height, width]: [usize; 2]) -> Result<Vec<u8>, DataError> {
    Crops::Centre.show(&data::read(path)?, [height, width])
}

/// The plan of a preset, if it is for such pictures.
fn plan(name: &str) -> Result<Plan, String> {
    // The pixels of other presets are normalised with their data set's mean.
    let is_for_pictures = |plan: &Plan| plan.stem().kind == StemKind::ImageNet;
    match preset(name).map(|preset| preset.plan()) {
        Ok(plan) if is_for_pictures(&plan) => Ok(plan),
        _ => {
            let all = PRESETS.iter().filter(|one| is_for_pictures(&one.plan()));
            let names: Vec<_> = all.map(|preset| preset.name).collect();
            Err(format!(
                "no preset {name:?} for pictures; there are {}",
                names.join(", ")
            ))
        }
    }
}

fn lines(file: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(text.lines().map(|line| line.trim().to_string()).collect())
}

/// The likeliest classes and their probabilities. A network may have more classes than its data
/// had. If there are names, classes without a name are left out.
fn likeliest(logits: &[f32], names: &[String]) -> Vec<(usize, f64)> {
    let classes = match names.len() {
        0 => logits.len(),
        names => names.min(logits.len()),
    };
    let logits = &logits[..classes];
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits
        .iter()
        .map(|&logit| f64::from(logit - highest).exp())
        .collect();
    let sum: f64 = powers.iter().sum();
    let mut all: Vec<_> = powers.iter().map(|power| power / sum).enumerate().collect();
    all.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    all.truncate(BEST);
    all
}

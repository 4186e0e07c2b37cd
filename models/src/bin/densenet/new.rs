//! `densenet new`: a crate of your own that trains a network on pictures.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use densenet_runtime::data::{Dataset, ImageFolder, Pictures};
use densenet_runtime::say;
use densenet_spec::ParsedSpec;

use crate::network::{self, Change, Choice};

/// The batch size, unless there are fewer pictures.
const BATCH: usize = 32;

/// Names that cargo or Rust reserve.
const TAKEN: [&str; 24] = [
    "alloc",
    "as",
    "async",
    "build",
    "const",
    "core",
    "crate",
    "densenet-runtime",
    "deps",
    "else",
    "examples",
    "for",
    "if",
    "impl",
    "in",
    "incremental",
    "match",
    "mod",
    "self",
    "static",
    "std",
    "test",
    "type",
    "use",
];

#[derive(Args)]
pub struct Arguments {
    /// The folder of the new crate, which must not exist.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Pictures in folders of their classes: PICTURES/train/CLASS/* and PICTURES/val/CLASS/*.
    #[arg(long, value_name = "PICTURES")]
    data: PathBuf,
    #[command(flatten)]
    choice: Choice,
    /// The folder of the crate densenet-runtime [default: that of this program's sources].
    #[arg(long, value_name = "DIR")]
    runtime: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let spec = arguments.choice.network()?;
    let stem = spec.plan.stem();
    let shown = Pictures::shaped([stem.channels, stem.height, stem.width])?;
    let (train, _) = ImageFolder::train_and_val_as(&arguments.data, shown)?;
    let spec = ParsedSpec {
        classes: train.classes().to_vec(),
        ..network::with(&spec, &[Change::Classes(train.classes())])?
    };
    let data = absolute(&arguments.data)?;
    let runtime = arguments.runtime()?;
    let package = Package::named(&arguments.dir, &spec.name);

    let dir = &arguments.dir;
    let failed =
        |what: &str, path: &Path, error| format!("cannot {what} {}: {error}", path.display());
    // No existing file is overwritten.
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(|error| failed("create", parent, error))?;
    }
    fs::create_dir(dir).map_err(|error| failed("create", dir, error))?;
    let sources = dir.join("src");
    fs::create_dir(&sources).map_err(|error| failed("create", &sources, error))?;
    let batch = train.len().min(BATCH);
    for (path, text) in [
        (dir.join("Cargo.toml"), manifest(&package, &runtime)),
        (dir.join(".gitignore"), "/target\n/out\n".to_string()),
        (
            sources.join("main.rs"),
            program(&package, &spec, &data, batch)?,
        ),
    ] {
        fs::write(&path, text).map_err(|error| failed("write", &path, error))?;
    }
    say!(
        "{} trains {} on the {} classes of {}:\n  cd {} && cargo run",
        dir.display(),
        package.network,
        spec.classes.len(),
        data,
        dir.display(),
    );
    Ok(())
}

impl Arguments {
    /// The path of the runtime's crate.
    fn runtime(&self) -> Result<String, Box<dyn Error>> {
        let found = match &self.runtime {
            Some(dir) => dir.clone(),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../densenet-runtime"),
        };
        if !found.join("Cargo.toml").is_file() {
            return Err(format!(
                "{} is not the folder of the crate densenet-runtime; give it with --runtime DIR",
                found.display()
            )
            .into());
        }
        absolute(&found)
    }
}

/// An absolute path.
fn absolute(path: &Path) -> Result<String, Box<dyn Error>> {
    let absolute = fs::canonicalize(path)
        .map_err(|error| format!("cannot find {}: {error}", path.display()))?;
    match absolute.to_str() {
        Some(text) => Ok(text.to_string()),
        None => Err(format!(
            "the path {} is not UTF-8, so no program can name it",
            path.display()
        )
        .into()),
    }
}

/// The names of the new crate.
struct Package {
    /// As cargo has it: `my-pets`.
    name: String,
    /// Its network's type: `MyPetsNet`.
    network: String,
    /// The preset that it is derived from: `DenseNet121`.
    model: String,
}

impl Package {
    fn named(dir: &Path, model: &str) -> Self {
        let dir = dir.file_name().unwrap_or_default().to_string_lossy();
        let words: Vec<String> = dir
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        let mut name = words.join("-");
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !starts_well || TAKEN.contains(&name.as_str()) {
            name = format!("net-{name}").trim_end_matches('-').to_string();
        }
        let network: String = name
            .split('-')
            .filter_map(|word| word.split_at_checked(1))
            .map(|(first, rest)| first.to_ascii_uppercase() + rest)
            .collect();
        Self {
            name,
            // No type of the prelude ends like this.
            network: network + "Net",
            model: model.to_string(),
        }
    }
}

fn manifest(package: &Package, runtime: &str) -> String {
    format!(
        r#"[package]
name = "{}"
version = "0.1.0"
edition = "2024"

[dependencies]
densenet-runtime = {{ path = {runtime:?} }}

# Training at full speed in `cargo run`, too.
[profile.dev.package."*"]
opt-level = 3

# A workspace of its own, wherever it lies.
[workspace]
"#,
        package.name,
    )
}

fn program(
    package: &Package,
    spec: &ParsedSpec,
    data: &str,
    batch: usize,
) -> Result<String, Box<dyn Error>> {
    let Package { network, model, .. } = package;
    let keys = spec
        .keys()
        .ok_or_else(|| format!("there is no spec of {model}'s layers"))?;
    let keys: String = keys.iter().map(|key| format!("        {key},\n")).collect();
    let stem = spec.plan.stem();
    let (channels, height, width) = (stem.channels, stem.height, stem.width);
    Ok(format!(
        r#"//! Trains {network} on pictures: `cargo run`. Ctrl-C ends a run with a checkpoint, and the next
//! `cargo run` continues the run.

use std::error::Error;
use std::sync::Arc;

use densenet_runtime::data::Pictures;
use densenet_runtime::prelude::*;

densenet! {{
    /// {model} for the classes of the pictures, in the order of their folders.
    pub {network} {{
{keys}    }}
}}

/// Folders of pictures: train/CLASS/* and val/CLASS/*.
const PICTURES: &str = {data:?};

fn main() -> Result<(), Box<dyn Error>> {{
    let config = Config {{
        epochs: 20,
        batch: {batch},
        schedule: Schedule::cosine(0.1, 1.0),
        label_smoothing: 0.1,
        ..Config::imagenet()
    }};
    let shown = Pictures::shaped([{channels}, {height}, {width}])?;
    let (train, val) = ImageFolder::train_and_val_as(PICTURES, shown)?;
    let train = Loader::training(Arc::new(train), config.batch)?.seeded(config.seed);
    let val = Loader::evaluation(Arc::new(val), config.batch)?;
    let (train, val) = (train.on_broken(OnBroken::Skip), val.on_broken(OnBroken::Skip));

    // `model.load_weights(file)?` starts from weights of the same network, and
    // `model.transplant_features(&other)?` from those of one with other classes.
    let model = Cpu::seed_from_u64(config.seed).build_module::<{network}, f32>();
    let mut trainer = Trainer::new(model, config)?;
    let folder = RunFolder::create("out")?;
    if folder.checkpoint().exists() {{
        trainer.resume(folder.checkpoint())?;
    }}
    let fit = Fit {{
        best: Some(folder.best()),
        interrupt: Interrupt::on_ctrl_c()?,
        ..folder.fit()
    }};
    let mut observers = folder.observers(&trainer, {network:?})?;
    let summary = trainer.fit(&train, &val, &fit, &mut observers)?;
    if let Some(best) = summary.best {{
        say!("best: {{}} {{:.3}} after step {{}}", best.by, best.score, best.step);
    }}
    Ok(())
}}
"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_a_crate_and_a_type_their_names() {
        let names = |dir: &str| {
            let package = Package::named(Path::new(dir), "DenseNet");
            (package.name, package.network)
        };
        let expected = |name: &str, network: &str| (name.to_string(), network.to_string());
        assert_eq!(names("a/My Pets"), expected("my-pets", "MyPetsNet"));
        assert_eq!(names("x_ray.2"), expected("x-ray-2", "XRay2Net"));
        assert_eq!(names("2025"), expected("net-2025", "Net2025Net"));
        assert_eq!(names("match"), expected("net-match", "NetMatchNet"));
        assert_eq!(names("größe"), expected("gr-e", "GrENet"));
        assert_eq!(names("/"), expected("net", "NetNet"));
    }
}

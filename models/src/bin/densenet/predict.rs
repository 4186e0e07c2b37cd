//! `densenet predict`: classifies pictures with a trained network.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use densenet_runtime::data::LabelKind;
use densenet_runtime::{console, say, tell};
use serde_json::{Map, Value, json};

use crate::features::Features;
use crate::infer::{self, Wanted, probabilities};
use crate::maps::MapOptions;
use crate::network::Choice;
use crate::pictures::{Set, Unlabelled};
use crate::saved::Saved;
use crate::view::View;

/// The number of classes that a table shows for each picture.
const BEST: usize = 5;

#[derive(Args)]
pub struct Arguments {
    /// A checkpoint, or a file of weights.
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// The names of the classes, one on each line [default: those in the weights].
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// How the answers are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The probability from which a class applies, if a picture may have several, as it may with this option
    /// if the weights do not say [default: the threshold of each class in the weights, or 0.5].
    #[arg(long, value_name = "P", value_parser = probability)]
    threshold: Option<f32>,
    #[command(flatten)]
    maps: MapOptions,
    /// Writes the pooled features of each picture, which the classifier reads: a tensor `features`
    /// of pictures x features with the note `paths`, or a line for each picture.
    #[arg(long, value_name = "FILE.safetensors|FILE.csv")]
    features: Option<PathBuf>,
    #[command(flatten)]
    view: View,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    options: infer::InferenceOptions,
    /// Pictures, and folders of them.
    #[arg(value_name = "PICTURE", required_unless_present = "list")]
    pictures: Vec<PathBuf>,
    /// A file that lists pictures: a path on each line, or a CSV with a column of paths.
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// The likeliest classes of each picture.
    #[default]
    Table,
    /// A line for each picture: its path, a probability for each class, and the classes that apply.
    Csv,
    /// The same as a JSON object on each line.
    Jsonl,
}

/// A probability on the command line.
fn probability(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("a probability is a number from 0 to 1".to_string()),
    }
}

pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut saved = Saved::read(&arguments.weights, &arguments.choice)?;
    if let Some(file) = &arguments.classes {
        saved.name_classes(lines(file)?)?;
    }
    if arguments.threshold.is_some() && saved.kind == LabelKind::Exclusive {
        if saved.says_kind() {
            return Err("--threshold is for pictures that may have several classes; by these weights each has one, \
                and the likeliest is predicted"
                .into());
        }
        tell!(
            "{} does not say whether a picture may have several of its classes; with --threshold each class is \
                judged on its own",
            arguments.weights.display()
        );
        saved.kind = LabelKind::Independent;
    }
    let list = arguments.list.as_deref();
    let set = Unlabelled::find(&arguments.pictures, list, &arguments.view, &saved)?;
    let set: Set = Arc::new(set);
    let answers = Answers {
        classes: saved.class_names(),
        thresholds: match arguments.threshold {
            Some(threshold) => vec![threshold; saved.plan.classes()],
            None => saved.thresholds(),
        },
        kind: saved.kind,
        format: arguments.format,
    };
    let drawn = arguments.maps.drawn(&saved)?;
    let mut features = match &arguments.features {
        Some(file) => Some(Features::create(file, saved.plan.features())?),
        None => None,
    };
    answers.begin()?;
    let wanted = drawn
        .as_ref()
        .map_or(Wanted::default(), |drawn| drawn.wanted());
    let unread = arguments.options.each(&saved, &set, wanted, &mut |said| {
        let path = set.name(said.index);
        answers.say(&path, &probabilities(said.logits, saved.kind))?;
        if let Some(drawn) = &drawn {
            drawn.draw(&saved, &said, &path, set.len())?;
        }
        if let Some(features) = &mut features {
            features.add(&path, said.features)?;
        }
        // If nobody reads the answers any more, nothing is left to do, unless files are wanted.
        if drawn.is_none() && features.is_none() {
            console::check()?;
        }
        Ok(())
    })?;
    if let Some(features) = features {
        features.finish()?;
    }
    match (unread, set.len()) {
        (0, _) => Ok(()),
        (1, 1) => Err("the picture could not be read".into()),
        (unread, all) => Err(format!("{unread} of {all} pictures could not be read").into()),
    }
}

fn lines(file: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(text.lines().map(|line| line.trim().to_string()).collect())
}

/// Writes answers.
struct Answers {
    classes: Vec<String>,
    thresholds: Vec<f32>,
    kind: LabelKind,
    format: Format,
}

impl Answers {
    fn begin(&self) -> Result<(), Box<dyn Error>> {
        if let Format::Csv = self.format {
            let names = self.classes.iter().map(String::as_str);
            let header = std::iter::once("path").chain(names).chain(["decision"]);
            record(header)?;
        }
        Ok(())
    }

    /// The classes that apply: the likeliest, or all that reach their thresholds.
    fn decisions(&self, probabilities: &[f64]) -> Vec<&str> {
        let named = || self.classes.iter().zip(probabilities);
        match self.kind {
            LabelKind::Exclusive => named()
                .max_by(|(_, one), (_, other)| one.total_cmp(other))
                .map(|(name, _)| name.as_str())
                .into_iter()
                .collect(),
            LabelKind::Independent => named()
                .zip(&self.thresholds)
                // Thresholds are rounded to f32, so one that is a picture's probability may be above it.
                .filter(|((_, probability), threshold)| **probability as f32 >= **threshold)
                .map(|((name, _), _)| name.as_str())
                .collect(),
        }
    }

    fn say(&self, path: &str, probabilities: &[f64]) -> Result<(), Box<dyn Error>> {
        let decisions = self.decisions(probabilities);
        match self.format {
            Format::Table => {
                say!("{path}");
                let mut named: Vec<_> = self.classes.iter().zip(probabilities).collect();
                named.sort_by(|(_, one), (_, other)| other.total_cmp(one));
                for (name, probability) in named.into_iter().take(BEST) {
                    let percent = 100.0 * probability;
                    let applies =
                        self.kind == LabelKind::Independent && decisions.contains(&&**name);
                    let mark = if applies { "  yes" } else { "" };
                    say!("  {percent:6.2}%  {name}{mark}");
                }
            }
            Format::Csv => {
                let numbers: Vec<_> = probabilities.iter().map(f64::to_string).collect();
                let numbers = numbers.iter().map(String::as_str);
                let decisions = decisions.join("|");
                let cells = std::iter::once(path).chain(numbers).chain([&*decisions]);
                record(cells)?;
            }
            Format::Jsonl => {
                let named = self.classes.iter().cloned();
                let named: Map<_, _> = named
                    .zip(probabilities.iter().map(|&number| Value::from(number)))
                    .collect();
                let line = json!({
                    "path": path,
                    "probabilities": named,
                    "decisions": decisions,
                });
                say!("{line}");
            }
        }
        Ok(())
    }
}

/// Writes a line of CSV to standard output.
fn record<'a>(cells: impl Iterator<Item = &'a str>) -> Result<(), Box<dyn Error>> {
    let mut line = csv::WriterBuilder::new()
        .terminator(csv::Terminator::Any(b'\n'))
        .from_writer(Vec::new());
    line.write_record(cells)?;
    let line = line.into_inner()?;
    console::say_bytes(line.strip_suffix(b"\n").unwrap_or(&line));
    Ok(())
}

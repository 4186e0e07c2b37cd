//! `densenet evaluate`: evaluates a trained network on labelled pictures.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use densenet_runtime::data::{Crops, Target};
use densenet_runtime::train::{ClassScore, Predictions, Scores};
use densenet_runtime::{Targets, say};
use serde_json::{Map, Value, json};

use crate::infer::{self, Wanted, probabilities};
use crate::network::Choice;
use crate::pictures::{Judged, Source, kind_of};
use crate::report::{self, Report};
use crate::saved::Saved;
use crate::table::CsvTable;
use crate::thresholds::{self, Thresholds};
use crate::view::View;

#[derive(Args)]
pub struct Arguments {
    /// A checkpoint, or a file of weights.
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    judged: Judged,
    #[command(flatten)]
    view: View,
    /// The number of crops of each picture whose logits are averaged: 1, the centre, or 10, the
    /// corners, the centre and their mirror images (paper, Table 3).
    #[arg(long, value_name = "1|10", default_value_t, value_parser = crops)]
    crops: Crops,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    options: infer::InferenceOptions,
    /// Writes the measures to a file: loss, top1_error, top5_error, and by class and as means auroc
    /// and average_precision.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the probability of each class for each picture to a file.
    #[arg(long, value_name = "FILE.csv")]
    predictions: Option<PathBuf>,
    /// Writes a report to a new folder: one HTML file with measures, curves, and pictures with class maps.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    #[command(flatten)]
    thresholds: Thresholds,
}

fn crops(text: &str) -> Result<Crops, String> {
    text.parse()
}

pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut saved = Saved::read(&arguments.weights, &arguments.choice)?;
    let Arguments { view, crops, .. } = arguments;
    let set = (arguments.source).labelled(&arguments.judged, (view, *crops), &saved)?;
    // The kind of labels decides how the network is evaluated.
    saved.kind = kind_of(&*set);
    arguments.thresholds.check(saved.kind, *crops)?;
    let mut names = saved.class_names();
    if saved.notes.classes.is_empty() {
        // If a network has more classes than its data, the others have no names.
        for (name, own) in names.iter_mut().zip(set.classes()) {
            name.clone_from(own);
        }
    }
    let folder = match &arguments.report {
        Some(folder) => Some(report::folder(folder)?),
        None => None,
    };
    let mut table = match &arguments.predictions {
        Some(file) => Some(CsvTable::create(file, &names)?),
        None => None,
    };
    let mut answers = Predictions::new(saved.plan.classes());
    let mut indices = Vec::new();
    let unread = arguments
        .options
        .each(&saved, &set, Wanted::default(), &mut |said| {
            let class;
            let targets = match set.target(said.index) {
                Target::Class(own) => {
                    class = [own];
                    Targets::Classes(&class)
                }
                Target::Independent(row) => Targets::Independent(row),
            };
            answers.add(said.logits, targets)?;
            indices.push(said.index);
            match &mut table {
                Some(table) => {
                    let probabilities = probabilities(said.logits, saved.kind);
                    table.write(&set.name(said.index), &probabilities)
                }
                None => Ok(()),
            }
        })?;
    if let Some(table) = table {
        table.finish()?;
    }
    if answers.images() == 0 {
        return Err("none of the pictures could be read".into());
    }
    let measures = Measures {
        pictures: answers.images(),
        unread,
        loss: loss(&answers, saved.plan.classes()),
        top1_error: answers.top_k_error(1),
        top5_error: (saved.plan.classes() > 5)
            .then(|| answers.top_k_error(5))
            .flatten(),
        scores: answers.scores(),
        confusion: answers.confusion(),
        names,
    };
    measures.say();
    let chosen = arguments.thresholds.choose(&answers);
    let mut json = measures.json();
    if let Some(chosen) = &chosen {
        json["thresholds"] = thresholds::json(chosen, &measures.names);
    }
    if let Some(file) = &arguments.json {
        write(file, &format!("{json:#}\n"))?;
    }
    if let Some(folder) = folder {
        let deciding = match &chosen {
            Some(chosen) => chosen.iter().map(|own| own.unwrap_or(0.5)).collect(),
            None => saved.thresholds(),
        };
        let report = Report {
            saved: &saved,
            set: &set,
            names: &measures.names,
            answers: &answers,
            indices: &indices,
            measures: &json,
            thresholds: &deciding,
            options: &arguments.options,
        };
        say!("\nreport       {}", report.write(&folder)?.display());
    }
    match chosen {
        Some(chosen) => (arguments.thresholds).keep(chosen, &measures.names, (&saved, view), &set),
        None => Ok(()),
    }
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

/// The mean loss over known labels: cross-entropy, or binary cross-entropy if classes are
/// independent. Labels are not smoothed.
fn loss(answers: &Predictions, classes: usize) -> Option<f64> {
    let rows = answers.logits().chunks_exact(classes);
    let (mut sum, mut known) = (0.0, 0_usize);
    match answers.targets() {
        Targets::Classes(labels) => {
            for (row, &label) in rows.zip(labels) {
                let row: Vec<f64> = row.iter().map(|&logit| f64::from(logit)).collect();
                let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: f64 = row.iter().map(|logit| (logit - highest).exp()).sum();
                let own = row.get(label as usize)?;
                sum += highest + powers.ln() - own;
                known += 1;
            }
        }
        Targets::Independent(values) => {
            for (&logit, &target) in answers.logits().iter().zip(values) {
                if !target.is_nan() {
                    let (logit, target) = (f64::from(logit), f64::from(target));
                    // log(1 + exp(logit)) - target * logit, without overflow.
                    sum += logit.max(0.0) - target * logit + (-logit.abs()).exp().ln_1p();
                    known += 1;
                }
            }
        }
        // No set of pictures has them.
        Targets::Probabilities(_) => return None,
    }
    (known > 0).then(|| sum / known as f64)
}

/// How well a network does.
struct Measures {
    pictures: usize,
    /// Pictures that could not be read.
    unread: usize,
    loss: Option<f64>,
    /// `None` where classes are independent.
    top1_error: Option<f64>,
    /// `None` there, and among five classes or fewer.
    top5_error: Option<f64>,
    scores: Scores,
    /// `None` where classes are independent.
    confusion: Option<Vec<Vec<usize>>>,
    names: Vec<String>,
}

impl Measures {
    fn say(&self) {
        let unread = match self.unread {
            0 => String::new(),
            unread => format!(" ({unread} more could not be read)"),
        };
        say!("pictures     {}{unread}", self.pictures);
        if let Some(loss) = self.loss {
            say!("loss         {loss:.4}");
        }
        if let Some(error) = self.top1_error {
            say!("top-1 error  {:.2}%", 100.0 * error);
        }
        if let Some(error) = self.top5_error {
            say!("top-5 error  {:.2}%", 100.0 * error);
        }
        let width = self.names.iter().map(|name| name.chars().count()).max();
        let width = width.unwrap_or(0).clamp(5, 40);
        let number = |number: Option<f64>| match number {
            Some(number) => format!("{number:.4}"),
            None => "-".to_string(),
        };
        say!(
            "\n{:width$}  {:>8}  {:>8}  {:>8}  {:>8}",
            "class",
            "known",
            "yes",
            "AUROC",
            "AP"
        );
        for (name, score) in self.names.iter().zip(&self.scores.classes) {
            say!(
                "{name:width$}  {:>8}  {:>8}  {:>8}  {:>8}",
                score.known,
                score.positive,
                number(score.auroc),
                number(score.average_precision),
            );
        }
        let mean = &self.scores.means;
        say!(
            "{:width$}  {:>8}  {:>8}  {:>8}  {:>8}",
            "mean",
            "",
            "",
            number(mean.auroc),
            number(mean.average_precision),
        );
    }

    fn json(&self) -> Value {
        let scores = &self.scores;
        let by_class = |score: fn(&ClassScore) -> Value| -> Map<String, Value> {
            let named = self.names.iter().cloned();
            named.zip(scores.classes.iter().map(score)).collect()
        };
        json!({
            "pictures": self.pictures,
            "unread": self.unread,
            "loss": self.loss,
            "top1_error": self.top1_error,
            "top5_error": self.top5_error,
            "auroc": {
                "mean": scores.means.auroc,
                "by_class": by_class(|score| score.auroc.into()),
            },
            "average_precision": {
                "mean": scores.means.average_precision,
                "by_class": by_class(|score| score.average_precision.into()),
            },
            "accuracy": {
                "mean": scores.means.accuracy,
                "by_class": by_class(|score| score.accuracy.into()),
            },
            "known": by_class(|score| score.known.into()),
            "positive": by_class(|score| score.positive.into()),
            "confusion": self.confusion,
            "calibration_error": scores.means.calibration_error,
        })
    }
}

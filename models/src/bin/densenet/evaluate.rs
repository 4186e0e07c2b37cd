//! `densenet evaluate`: how well a trained network does on pictures with labels.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use densenet_runtime::data::{Crops, Target};
use densenet_runtime::train::{ClassScore, Predictions, Scores};
use densenet_runtime::{Targets, say};
use serde_json::{Map, Value, json};

use crate::infer::{self, probabilities};
use crate::network::Choice;
use crate::pictures::{Judged, Source, kind_of};
use crate::saved::Saved;
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
    /// The number of crops of each picture whose logits are averaged: 1, its centre, or 10, its
    /// corners and centre and the same mirrored (paper, Table 3).
    #[arg(long, value_name = "1|10", default_value_t, value_parser = crops)]
    crops: Crops,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    options: infer::Options,
    /// Writes the measures to a file: loss, top1_error, and by class and as means auroc and
    /// average_precision.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the probability of each class for each picture to a file.
    #[arg(long, value_name = "FILE.csv")]
    predictions: Option<PathBuf>,
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
    // What the labels are decides how the network is judged.
    saved.kind = kind_of(&*set);
    arguments.thresholds.check(saved.kind, *crops)?;
    let mut names = saved.class_names();
    // Of a network with more classes than its data had, the others have no names.
    for (name, own) in names.iter_mut().zip(set.classes()) {
        name.clone_from(own);
    }
    let mut table = match &arguments.predictions {
        Some(file) => Some(Table::create(file, &names)?),
        None => None,
    };
    let mut answers = Predictions::new(saved.plan.classes());
    let unread = arguments.options.each(&saved, &set, &mut |said| {
        let class;
        let targets = match set.target(said.index) {
            Target::Class(own) => {
                class = [own];
                Targets::Classes(&class)
            }
            Target::Independent(row) => Targets::Independent(row),
        };
        answers.add(said.logits, targets)?;
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
        scores: answers.scores(),
        names,
    };
    measures.say();
    let chosen = arguments.thresholds.choose(&answers);
    if let Some(file) = &arguments.json {
        let mut json = measures.json();
        if let Some(chosen) = &chosen {
            json["thresholds"] = thresholds::json(chosen, &measures.names);
        }
        write(file, &format!("{json:#}\n"))?;
    }
    match chosen {
        Some(chosen) => (arguments.thresholds).keep(chosen, &measures.names, (&saved, view), &set),
        None => Ok(()),
    }
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

/// A file of probabilities.
struct Table {
    path: PathBuf,
    file: csv::Writer<std::fs::File>,
}

impl Table {
    fn create(path: &Path, classes: &[String]) -> Result<Self, Box<dyn Error>> {
        let file = csv::Writer::from_path(path)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let path = path.to_path_buf();
        let mut own = Self { path, file };
        let names = classes.iter().map(String::as_str);
        own.record(std::iter::once("path").chain(names))?;
        Ok(own)
    }

    fn write(&mut self, path: &str, probabilities: &[f64]) -> Result<(), Box<dyn Error>> {
        let numbers: Vec<_> = probabilities.iter().map(f64::to_string).collect();
        self.record(std::iter::once(path).chain(numbers.iter().map(String::as_str)))
    }

    fn record<'a>(&mut self, cells: impl Iterator<Item = &'a str>) -> Result<(), Box<dyn Error>> {
        let written = self.file.write_record(cells);
        written.map_err(|error| format!("cannot write {}: {error}", self.path.display()).into())
    }

    fn finish(mut self) -> Result<(), Box<dyn Error>> {
        let written = self.file.flush();
        written.map_err(|error| format!("cannot write {}: {error}", self.path.display()).into())
    }
}

/// The mean loss of what is known: cross-entropy, or binary cross-entropy where classes are independent.
/// Labels are not smoothed.
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
    scores: Scores,
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
            "auroc": {
                "mean": scores.means.auroc,
                "by_class": by_class(|score| score.auroc.into()),
            },
            "average_precision": {
                "mean": scores.means.average_precision,
                "by_class": by_class(|score| score.average_precision.into()),
            },
            "known": by_class(|score| score.known.into()),
            "calibration_error": scores.means.calibration_error,
        })
    }
}

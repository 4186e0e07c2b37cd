//! `densenet evaluate --threshold`: thresholds chosen on the evaluated pictures, kept in a copy of the weights.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use densenet_runtime::data::{Crops, LabelKind};
use densenet_runtime::say;
use densenet_runtime::train::{Predictions, ThresholdRule};
use densenet_runtime::weights::{self, Notes};
use serde_json::{Map, Value};

use crate::pictures::Set;
use crate::remembered::Remembered;
use crate::saved::{self, Saved};
use crate::view::View;

#[derive(Args)]
pub struct Thresholds {
    /// Chooses a threshold for each class on the evaluated pictures, if a picture may have several:
    /// youden (the highest sum of sensitivity and specificity), or sensitivity=0.9 (the highest
    /// threshold that finds this share of the class's pictures).
    #[arg(long, value_name = "RULE")]
    threshold: Option<ThresholdRule>,
    /// Writes a copy of the weights with these thresholds for `predict`: .safetensors, or .pth for
    /// PyTorch. The file must not exist.
    #[arg(long, value_name = "FILE", requires = "threshold")]
    out: Option<PathBuf>,
}

/// A threshold for each class; `None` unless its known labels are both positive and negative.
pub type Chosen = Vec<Option<f32>>;

impl Thresholds {
    /// Refuses impossible requests before the evaluation.
    pub fn check(&self, kind: LabelKind, crops: Crops) -> Result<(), Box<dyn Error>> {
        if self.threshold.is_none() {
            return Ok(());
        }
        if kind == LabelKind::Exclusive {
            return Err(
                "--threshold is for pictures that may have several classes; these have one \
                each, and the likeliest class is predicted"
                    .into(),
            );
        }
        if crops != Crops::Centre {
            return Err(format!(
                "--threshold is for the preprocessing of `predict`, which takes one crop of each \
                    picture, not {crops}; leave --crops out"
            )
            .into());
        }
        self.out.as_deref().map_or(Ok(()), check_free)
    }

    /// The thresholds on the evaluated pictures, if they are requested.
    pub fn choose(&self, answers: &Predictions) -> Option<Chosen> {
        Some(answers.thresholds(self.threshold?))
    }

    /// Prints the thresholds, and writes them into a copy of the weights if one is requested.
    pub fn keep(
        &self,
        chosen: Chosen,
        names: &[String],
        (saved, view): (&Saved, &View),
        set: &Set,
    ) -> Result<(), Box<dyn Error>> {
        let width = names.iter().map(|name| name.chars().count()).max();
        let width = width.unwrap_or(0).clamp(5, 40);
        say!("\n{:width$}  {:>9}", "class", "threshold");
        for (name, threshold) in names.iter().zip(&chosen) {
            match threshold {
                Some(threshold) => say!("{name:width$}  {threshold:>9.4}"),
                None => say!(
                    "{name:width$}  {:>9}  (0.5 is used: a threshold needs pictures with this \
                        class and without it)",
                    "-"
                ),
            }
        }
        let Some(out) = &self.out else {
            return Ok(());
        };
        check_free(out)?;
        let notes = Notes {
            classes: set.classes().to_vec(),
            normalization: Some(set.normalization().clone()),
            thresholds: chosen,
        };
        // They are valid for pictures that are preprocessed like these.
        let (view, _) = view.after(&saved.file)?;
        let shown = (View::NOTE, view.words());
        let network = saved::lines(&saved.name, &saved.plan, saved.kind);
        let others = network.into_iter().chain([shown]);
        let others = others.map(|(key, note)| (key.to_string(), note));
        weights::copy(&saved.file, &saved.plan, out, &notes, others)?;
        say!("\nweights with these thresholds: {}", out.display());
        Ok(())
    }
}

/// As an object of JSON.
pub fn json(chosen: &Chosen, names: &[String]) -> Value {
    let values = chosen.iter().map(|&threshold| Value::from(threshold));
    Value::Object(names.iter().cloned().zip(values).collect::<Map<_, _>>())
}

/// Refuses a file that cannot be written, or that would be overwritten.
fn check_free(out: &Path) -> Result<(), Box<dyn Error>> {
    weights::check_name(out)?;
    if out.exists() {
        return Err(format!(
            "--out {}: the file exists; give it another name, or remove it first",
            out.display()
        )
        .into());
    }
    match out.parent() {
        Some(folder) if folder != Path::new("") && !folder.is_dir() => Err(format!(
            "--out {}: there is no folder {}; make it first",
            out.display(),
            folder.display()
        )
        .into()),
        _ => Ok(()),
    }
}

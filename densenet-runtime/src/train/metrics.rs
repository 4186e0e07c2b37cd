//! A run's metrics, one JSON object per line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::{Evaluation, Observer, Outline, Rescheduled, StepReport, TrainError};
use crate::files;

/// A line of a file of metrics. JSON has no form for a number that is not finite, so a loss of
/// `null` is read as NaN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Metric {
    /// An evaluation. Errors are shares, in [0, 1].
    Evaluation {
        /// Steps done before it.
        step: u64,
        /// Epochs done before it, with the fraction of the current one.
        epoch: f64,
        /// Share of images whose class does not have the highest logit; `None` if targets are independent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        top1_error: Option<f64>,
        /// Share of images whose class is not among the five highest logits, likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        top5_error: Option<f64>,
        /// Share of the known independent targets that are predicted wrongly at a threshold of 0.5.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decision_error: Option<f64>,
        /// The mean AUROC of the classes, if it was computed and some class has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        auroc: Option<f64>,
        /// The mean average precision, likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        average_precision: Option<f64>,
        /// Mean loss over the images, not smoothed.
        #[serde(deserialize_with = "loss")]
        val_loss: f64,
    },
    /// A step.
    Step {
        /// Steps done, this one included.
        step: u64,
        /// The epoch it belongs to, counted from 1.
        epoch: u32,
        /// Mean loss over the batch.
        #[serde(deserialize_with = "loss")]
        loss: f64,
        /// Learning rate.
        #[serde(rename = "lr")]
        learning_rate: f32,
        /// Images a second, waiting for the data included.
        images_per_s: f64,
    },
    /// The run was resumed with another schedule.
    Rescheduled(Rescheduled),
}

impl Metric {
    /// Steps done.
    pub const fn step(&self) -> u64 {
        match self {
            Self::Evaluation { step, .. } | Self::Step { step, .. } => *step,
            Self::Rescheduled(change) => change.step,
        }
    }

    /// Whether it can be written again: a learning rate too large for f32 is read as infinity.
    fn is_sound(&self) -> bool {
        match self {
            Self::Evaluation { .. } => true,
            Self::Step { learning_rate, .. } => learning_rate.is_finite(),
            Self::Rescheduled(change) => {
                let schedules = [&change.schedule, &change.schedule_before];
                schedules.iter().all(|each| each.problem().is_none())
            }
        }
    }

    /// Whether a run that is resumed from a checkpoint of this step keeps this line. A change of
    /// the schedule at this very step comes after the checkpoint, and is written again if it is
    /// made again; so is an evaluation that is due.
    const fn is_before(&self, checkpoint: u64, evaluation_due: bool) -> bool {
        let step = self.step();
        match self {
            Self::Step { .. } => step <= checkpoint,
            Self::Evaluation { .. } if !evaluation_due => step <= checkpoint,
            Self::Evaluation { .. } | Self::Rescheduled(_) => step < checkpoint,
        }
    }
}

/// A loss, or NaN in place of `null`.
fn loss<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Option::<f64>::deserialize(from).map(|loss| loss.unwrap_or(f64::NAN))
}

impl From<&StepReport> for Metric {
    fn from(report: &StepReport) -> Self {
        Self::Step {
            step: report.step,
            epoch: report.epoch,
            loss: report.loss,
            learning_rate: report.learning_rate,
            // Figures past the first few are noise.
            images_per_s: (report.images_per_second() * 100.0).round() / 100.0,
        }
    }
}

impl From<&Evaluation> for Metric {
    fn from(evaluation: &Evaluation) -> Self {
        let means = evaluation.means.unwrap_or_default();
        let of_classes = !evaluation.independent;
        Self::Evaluation {
            step: evaluation.step,
            epoch: evaluation.epoch,
            top1_error: of_classes.then(|| evaluation.top1_error()),
            top5_error: of_classes.then(|| evaluation.top5_error()),
            decision_error: evaluation.decision_error(),
            auroc: means.auroc,
            average_precision: means.average_precision,
            val_loss: evaluation.loss,
        }
    }
}

/// Writes the metrics of a run to a file, in whole lines.
///
/// The file does not change before the run begins: a run that is refused leaves it as it was.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    step: u64,
    evaluation_due: bool,
    file: Option<File>,
}

impl Metrics {
    /// Starts a file, or continues one: lines of steps after `step`, which the run wrote after the
    /// checkpoint that it is now resumed from, are dropped.
    ///
    /// # Errors
    /// When the file cannot be read, or has malformed lines.
    pub fn create(path: impl Into<PathBuf>, step: u64) -> Result<Self, TrainError> {
        let path = path.into();
        if step > 0 {
            lines(&path)?;
        }
        Ok(Self {
            path,
            step,
            evaluation_due: false,
            file: None,
        })
    }

    /// The file, with the lines that are kept.
    fn open(&self) -> Result<File, TrainError> {
        let Self {
            path,
            step,
            evaluation_due,
            ..
        } = self;
        let failed = failed("write", path);
        let kept = if *step == 0 {
            String::new()
        } else {
            lines(path)?
                .iter()
                .filter(|metric| metric.is_before(*step, *evaluation_due))
                .map(line)
                .collect()
        };
        // All or nothing: earlier metrics must not be lost.
        files::replace(path, kept.as_bytes()).map_err(&failed)?;
        OpenOptions::new().append(true).open(path).map_err(&failed)
    }

    fn write(&mut self, metric: Metric) -> Result<(), TrainError> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        let written = file.write_all(line(&metric).as_bytes());
        self.file = Some(file);
        written.map_err(failed("write", &self.path))
    }
}

impl Observer for Metrics {
    fn begin(&mut self, outline: &Outline) -> Result<(), TrainError> {
        self.evaluation_due = outline.evaluation_due;
        if self.file.is_none() {
            self.file = Some(self.open()?);
        }
        Ok(())
    }

    fn rescheduled(&mut self, change: &Rescheduled) -> Result<(), TrainError> {
        self.write(Metric::Rescheduled(change.clone()))
    }

    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        self.write(report.into())
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        self.write(evaluation.into())
    }
}

/// Reads a file of metrics. A truncated last line, as a kill leaves it, is skipped; a file that
/// does not exist has no lines.
///
/// # Errors
/// When the file cannot be read, or has malformed lines.
pub fn lines(path: &Path) -> Result<Vec<Metric>, TrainError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let mut reader = BufReader::new(file);
    let mut metrics = Vec::new();
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        let read = reader.read_until(b'\n', &mut text);
        if read.map_err(failed("read", path))? == 0 || !text.ends_with(b"\n") {
            break;
        }
        let metric: Option<Metric> = serde_json::from_slice(&text).ok();
        let metric = metric.filter(Metric::is_sound);
        let metric = metric.ok_or_else(|| TrainError::Metrics {
            path: path.to_path_buf(),
            line: number,
            reason: format!(
                "`{}` is neither a step, an evaluation nor a change of the schedule",
                String::from_utf8_lossy(text.trim_ascii_end())
            ),
        })?;
        metrics.push(metric);
    }
    Ok(metrics)
}

fn line(metric: &Metric) -> String {
    // This cannot fail: JSON has a form for numbers and fixed names.
    let mut line = serde_json::to_string(metric).unwrap_or_default();
    line.push('\n');
    line
}

fn failed(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> TrainError + use<> {
    let path = path.to_path_buf();
    move |source| TrainError::File {
        what,
        path: path.clone(),
        source,
    }
}

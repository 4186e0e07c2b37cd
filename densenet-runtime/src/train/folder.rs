//! A run's folder: checkpoint, metrics, curves.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

#[cfg(feature = "figures")]
use super::Curves;
use super::{Fit, Metrics, Observer, Outline, PlanTrainer, ProgressBar, TrainError};
use crate::{files, tell};

const BEST: &str = "best.safetensors";

/// The folder for the files of a run: `checkpoint.safetensors`, `metrics.jsonl`, `curves.png`, and,
/// on request, `best.safetensors` ([`Fit::best`]), `tensorboard` and `split.csv`.
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// The name of the file that lists the pictures for validation, for a program that draws them.
    pub const SPLIT: &'static str = "split.csv";

    /// Makes the folder, unless it exists.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, TrainError> {
        let path = path.into();
        match std::fs::create_dir_all(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(failed("create", path, source)),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file of the latest checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.0.join("checkpoint.safetensors")
    }

    /// The file of the checkpoint with the lowest validation error, for [`Fit::best`].
    pub fn best(&self) -> PathBuf {
        self.0.join(BEST)
    }

    /// Copies the best checkpoint from the folder of the checkpoint that a run is resumed from,
    /// unless this folder has one: a run that is resumed in another folder may not find a better
    /// one.
    ///
    /// # Errors
    /// When that folder has no best checkpoint, it cannot be copied, or this folder has that of another run.
    pub fn bring_best(&self, checkpoint: impl AsRef<Path>) -> Result<(), TrainError> {
        let best = self.best();
        let before = checkpoint.as_ref().with_file_name(BEST);
        if best.exists() {
            // A run that was killed before its first checkpoint finds the copy that it brought.
            let is_own = || std::fs::read(&before).ok() == std::fs::read(&best).ok();
            if self.checkpoint().exists() || is_own() {
                return Ok(());
            }
            let reason = "it is of another run, which this one would replace; use another folder";
            let other = std::io::Error::new(ErrorKind::AlreadyExists, reason);
            return Err(failed("continue beside", best, other));
        }
        let copied = std::fs::read(&before).and_then(|bytes| files::replace(&best, &bytes));
        match copied {
            Ok(()) => Ok(()),
            Err(source) => Err(failed("copy the best checkpoint", before, source)),
        }
    }

    /// The file of metrics.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The picture of the curves.
    pub fn curves(&self) -> PathBuf {
        self.0.join("curves.png")
    }

    /// The folder of TensorBoard's event files, for [`TensorBoard`](super::TensorBoard).
    pub fn tensorboard(&self) -> PathBuf {
        self.0.join("tensorboard")
    }

    /// Settings of a run that writes its checkpoints here.
    pub fn fit(&self) -> Fit {
        Fit {
            checkpoint: Some(self.checkpoint()),
            ..Fit::default()
        }
    }

    /// Progress bar, metrics and curves for a trainer that starts or has resumed a checkpoint;
    /// empty for a trainer that leaves the files to [another process](PlanTrainer::among). A new
    /// run moves the files of an earlier run into a folder of their own, `previous-1` or the first
    /// free number, and reports this on standard error. No file changes before the run begins.
    ///
    /// # Errors
    /// When the metrics of the run that is resumed cannot be read.
    pub fn observers(
        &self,
        trainer: &PlanTrainer,
        title: &str,
    ) -> Result<Vec<Box<dyn Observer>>, TrainError> {
        if !trainer.writes() {
            return Ok(Vec::new());
        }
        self.observers_from(trainer.steps(), title)
    }

    pub(super) fn observers_from(
        &self,
        step: u64,
        title: &str,
    ) -> Result<Vec<Box<dyn Observer>>, TrainError> {
        let metrics = Metrics::create(self.metrics(), step)?;
        let mut observers: Vec<Box<dyn Observer>> = Vec::new();
        if step == 0 {
            observers.push(Box::new(Keep(self.clone())));
        }
        observers.push(Box::new(ProgressBar::new()));
        observers.push(Box::new(metrics));
        #[cfg(feature = "figures")]
        observers.push(Box::new(Curves::new(self.metrics(), self.curves(), title)));
        #[cfg(not(feature = "figures"))]
        let _ = title;
        Ok(observers)
    }

    /// Moves the files of an earlier run into a folder of their own; returns it if there were any.
    fn keep(&self) -> Result<Option<PathBuf>, TrainError> {
        let files = [
            self.checkpoint(),
            self.best(),
            self.metrics(),
            self.curves(),
            self.tensorboard(),
            self.0.join(Self::SPLIT),
        ];
        let files: Vec<_> = files.into_iter().filter(|file| file.exists()).collect();
        if files.is_empty() {
            return Ok(None);
        }
        let mut number = 1;
        let kept = loop {
            let kept = self.0.join(format!("previous-{number}"));
            match std::fs::create_dir(&kept) {
                Ok(()) => break kept,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(failed("create", kept, source)),
            }
        };
        for file in files {
            let Some(name) = file.file_name() else {
                continue;
            };
            if let Err(source) = std::fs::rename(&file, kept.join(name)) {
                return Err(failed("rename", file, source));
            }
        }
        Ok(Some(kept))
    }
}

/// Keeps the files of an earlier run in the folder.
struct Keep(RunFolder);

impl Observer for Keep {
    fn begin(&mut self, _: &Outline) -> Result<(), TrainError> {
        if let Some(kept) = self.0.keep()? {
            tell!("the files of the earlier run are now in {}", kept.display());
        }
        Ok(())
    }
}

fn failed(what: &'static str, path: PathBuf, source: std::io::Error) -> TrainError {
    TrainError::File { what, path, source }
}

//! A run's folder: checkpoint, metrics, curves.

use std::path::{Path, PathBuf};

use super::{Curves, Metrics, Observer, ProgressBar, TrainError, Trainer};
use crate::Network;

/// Where a run leaves what it makes: `checkpoint.safetensors`, `metrics.jsonl`, `curves.png`.
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// Makes the folder, unless it is there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, TrainError> {
        let path = path.into();
        match std::fs::create_dir_all(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(TrainError::File {
                what: "create",
                path,
                source,
            }),
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

    /// The file of the checkpoint with the lowest validation error, for [`Fit::best`](super::Fit).
    pub fn best(&self) -> PathBuf {
        self.0.join("best.safetensors")
    }

    /// The file of metrics.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The picture of the curves.
    pub fn curves(&self) -> PathBuf {
        self.0.join("curves.png")
    }

    /// Progress bar, metrics and curves for a trainer that starts or, where it has resumed a
    /// checkpoint, goes on. A start keeps the files of a run that was here before as
    /// `previous.safetensors` and `previous.jsonl`.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn observers<N: Network>(
        &self,
        trainer: &Trainer<N>,
        title: &str,
    ) -> Result<Vec<Box<dyn Observer>>, TrainError> {
        self.observers_from(trainer.steps(), title)
    }

    pub(super) fn observers_from(
        &self,
        step: u64,
        title: &str,
    ) -> Result<Vec<Box<dyn Observer>>, TrainError> {
        if step == 0 {
            self.keep(&self.checkpoint(), "previous.safetensors")?;
            self.keep(&self.metrics(), "previous.jsonl")?;
        }
        let metrics = Metrics::create(self.metrics(), step)?;
        let curves = Curves::new(self.metrics(), self.curves(), title);
        Ok(vec![
            Box::new(ProgressBar::new()),
            Box::new(metrics),
            Box::new(curves),
        ])
    }

    fn keep(&self, file: &Path, name: &str) -> Result<(), TrainError> {
        if !file.exists() {
            return Ok(());
        }
        std::fs::rename(file, self.0.join(name)).map_err(|source| TrainError::File {
            what: "rename",
            path: file.to_path_buf(),
            source,
        })
    }
}

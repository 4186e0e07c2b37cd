//! What can go wrong in a run.

use std::path::PathBuf;

use super::checkpoint::CheckpointError;
use crate::ExecutorError;
use crate::weights::WeightsError;

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting makes no sense.
    #[error("{0}")]
    Config(String),
    /// The loss is infinite or no number.
    #[error(
        "the loss is {loss} at step {step} with learning rate {rate}: training has diverged, or the images hold values that are no numbers. The weights before this step are unharmed; go on from the last checkpoint with a lower rate, or with a warm-up"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// Its learning rate.
        rate: f32,
        /// The loss.
        loss: f64,
    },
    /// The executor failed.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The data could not be had.
    #[error("{0}")]
    Data(Box<dyn std::error::Error + Send + Sync>),
    /// There are no images.
    #[error("the {0} set has no images; a run needs at least one")]
    NoImages(&'static str),
    /// A checkpoint could not be written, read or used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A model's numbers could not be moved.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Ctrl-C cannot be listened for.
    #[error("cannot listen for Ctrl-C: {0}")]
    CtrlC(#[source] std::io::Error),
    /// A file could not be written or read.
    #[error("cannot {what} {}: {source}", .path.display())]
    File {
        /// Write, read, create.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of a file of metrics is none.
    #[error("{}, line {line}: {reason}; remove the file or write to another folder", .path.display())]
    Metrics {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture could not be drawn.
    #[error("cannot draw the curves: {0}")]
    Curves(String),
}

//! The errors of a run.

use std::path::PathBuf;

use crate::ExecutorError;
use crate::weights::WeightsError;

/// What to do when a run has diverged.
const ADVICE: &str = "Resume the last checkpoint with a lower learning rate (`--resume FILE --lr RATE` of the examples, `Trainer::resume_with_schedule`), or start again with one, or with a longer warm-up";

/// Why a run could not continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting makes no sense.
    #[error("{0}")]
    Config(String),
    /// The loss of a step is infinite or NaN.
    #[error(
        "the loss is {loss} at step {step} with learning rate {learning_rate}: training has diverged, or an image contains NaN or infinity. The step was not taken and changed nothing. {ADVICE}"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// Its learning rate.
        learning_rate: f32,
        /// The loss.
        loss: f64,
    },
    /// The weights after a step give a loss that is infinite or NaN.
    #[error(
        "the {what} loss is {loss} after step {step}: training has diverged. No file was replaced. {ADVICE}"
    )]
    Diverged {
        /// Training or validation.
        what: &'static str,
        /// Steps done.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// The data has other classes than the network names.
    #[error(
        "the {what} data has other classes than the network: {difference}. List `classes` in the order of the data's labels (a folder of pictures numbers its classes in the order of their names), or use data with these classes"
    )]
    Classes {
        /// Training or validation.
        what: &'static str,
        /// The difference.
        difference: String,
    },
    /// The executor failed.
    #[error("{0}")]
    Executor(#[from] ExecutorError),
    /// The data could not be read.
    #[error("{0}")]
    Data(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There are no images.
    #[error("the {0} set has no images; a run needs at least one")]
    NoImages(&'static str),
    /// A checkpoint could not be written, read or used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A model's numbers could not be copied.
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
    /// A file of metrics has a malformed line.
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

/// Why a checkpoint could not be written, read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file could not be read or written, or its tensors are not the network's.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The file is damaged.
    #[error("{} is a damaged checkpoint: {reason}; use an older one", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor holds a number that is not finite.
    #[error(
        "{} was not written, and the previous file is unchanged: `{name}` holds {found}, so \
            training has diverged", .path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// A tensor.
        name: String,
        /// One of its elements: NaN or an infinity.
        found: f32,
    },
    /// The file holds weights, but no run.
    #[error(
        "{} holds weights, but no run to resume (it has no note `densenet`); load it as weights \
            and start a new run", .path.display()
    )]
    WeightsOnly {
        /// The file.
        path: PathBuf,
    },
    /// The file has an unknown version of the format.
    #[error(
        "{} is a checkpoint of format {found}, written by version {version}; this version reads formats 1 to {newest}", .path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The version that wrote it.
        version: String,
        /// The newest format that this version reads.
        newest: u32,
    },
    /// The checkpoint is of another network.
    #[error(
        "{} is a checkpoint of {found}, not of {expected}:\n  checkpoint: {found_plan}\n  network:    {expected_plan}", .path.display()
    )]
    Network {
        /// The file.
        path: PathBuf,
        /// The name of its network.
        found: String,
        /// That network's plan in a line.
        found_plan: String,
        /// The name of the network that is to be resumed.
        expected: String,
        /// That network's plan in a line.
        expected_plan: String,
    },
    /// The run has other settings.
    #[error(
        "{} is a checkpoint of a run with other settings: {}. Resume with the settings of the checkpoint (another learning rate or schedule can be asked for by name), or start a new run from its weights", .path.display(), .differences.join("; ")
    )]
    Settings {
        /// The file.
        path: PathBuf,
        /// What differs.
        differences: Vec<String>,
    },
    /// The data has other classes.
    #[error(
        "the checkpoint's run has other classes than the data at hand: {difference}; resume with the data of the checkpoint, or start a new run from its weights"
    )]
    Classes {
        /// The difference.
        difference: String,
    },
    /// The data is normalised differently.
    #[error(
        "the checkpoint's run normalised its data differently: {difference}; resume with the \
            checkpoint's normalisation, or start a new run from its weights"
    )]
    Normalization {
        /// The difference.
        difference: String,
    },
    /// The data has another length.
    #[error(
        "the checkpoint's run has {found} steps in an epoch, but the data at hand gives {expected}, so it is other data; resume with the data of the checkpoint"
    )]
    Data {
        /// Steps of an epoch in the checkpoint.
        found: u64,
        /// Steps of an epoch now.
        expected: u64,
    },
}

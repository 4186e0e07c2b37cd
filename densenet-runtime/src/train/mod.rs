//! Training: the loop, schedules, checkpoints, metrics.
//!
//! A [`Trainer`] takes a network and a [`Config`] and runs steps on an
//! [`Executor`](crate::Executor). [`Trainer::fit`](PlanTrainer::fit) is the whole loop: it takes
//! [`Batches`], and [`Observer`]s that show the run ([`ProgressBar`]), record it ([`Metrics`],
//! [`TensorBoard`]) and draw it ([`Curves`]). A [`RunFolder`] has all of these and the checkpoint
//! in one place.
//!
//! An evaluation has errors, or with independent targets a mean AUROC and average precision.
//! [`Trainer::predict`](PlanTrainer::predict) returns the [`Predictions`], from which all scores
//! can be computed.
//!
//! ```no_run
//! use std::sync::Arc;
//! use densenet_runtime::{Network, data::{ImageFolder, Loader}};
//! use densenet_runtime::train::{Config, RunFolder, Trainer};
//!
//! fn train<N: Network>(model: N) -> Result<N, Box<dyn std::error::Error>> {
//!     let config = Config { batch: 64, ..Config::imagenet() };
//!     let (train, val) = ImageFolder::train_and_val("pictures", [224, 224])?;
//!     let train = Loader::training(Arc::new(train), config.batch)?;
//!     let val = Loader::evaluation(Arc::new(val), config.batch)?;
//!
//!     let mut trainer = Trainer::new(model, config)?;
//!     let folder = RunFolder::create("out")?;
//!     let mut observers = folder.observers(&trainer, "A run")?;
//!     trainer.fit(&train, &val, &folder.fit(), &mut observers)?;
//!     Ok(trainer.into_model()?)
//! }
//! ```

mod batches;
mod checkpoint;
mod config;
#[cfg(feature = "figures")]
mod curves;
mod error;
mod fit;
mod folder;
mod interrupt;
mod metrics;
mod observer;
mod parts;
mod population;
mod progress;
mod report;
mod runner;
mod schedule;
mod score;
mod slow;
mod tally;
mod tensorboard;
mod trainer;
mod views;

#[cfg(test)]
mod tests;

pub use batches::Batches;
pub use config::{Algorithm, Config};
#[cfg(feature = "figures")]
pub use curves::Curves;
pub use error::{CheckpointError, TrainError};
pub use fit::Fit;
pub use folder::RunFolder;
pub use interrupt::Interrupt;
pub use metrics::{Metric, Metrics, lines};
pub use observer::Observer;
pub use parts::{Freeze, PartError, PartRate};
pub use progress::ProgressBar;
pub use report::{Best, Ending, Evaluation, Outline, Rescheduled, StepReport, Summary};
pub use schedule::{CYCLED_MOMENTUM, Decay, Milestone, Progress, Schedule};
pub use score::{
    BestBy, CalibrationBin, ClassScore, Curve, MeanScores, Predictions, Scores, ThresholdRule,
    UnknownRule, UnknownScore,
};
pub use tensorboard::TensorBoard;
pub use trainer::{PlanTrainer, Trainer};

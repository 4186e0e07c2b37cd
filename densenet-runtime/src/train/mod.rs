//! Training: the loop, schedules, checkpoints, metrics.
//!
//! A [`Trainer`] takes a network and a [`Config`] and runs steps on an
//! [`Executor`](crate::Executor). [`Trainer::fit`] is the whole loop: it takes [`Batches`], and
//! [`Observer`]s that show the run ([`Progress bar`](ProgressBar)), write it down ([`Metrics`])
//! and draw it ([`Curves`]).

mod batches;
mod checkpoint;
mod config;
mod curves;
mod engine;
mod error;
mod fit;
mod interrupt;
mod metrics;
mod observer;
mod progress;
mod report;
mod schedule;
mod trainer;

#[cfg(test)]
mod tests;

pub use batches::Batches;
pub use checkpoint::CheckpointError;
pub use config::Config;
pub use curves::Curves;
pub use error::TrainError;
pub use fit::Fit;
pub use interrupt::Interrupt;
pub use metrics::{Metric, Metrics, lines};
pub use observer::Observer;
pub use progress::ProgressBar;
pub use report::{Best, Ending, Evaluation, Outline, StepReport, Summary};
pub use schedule::{Decay, Moment, Progress, Schedule};
pub use trainer::Trainer;

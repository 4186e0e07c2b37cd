//! The contract of executors: what runs a plan.
//!
//! An executor owns a network's whole training state: parameters, gradients, momentum, running
//! statistics, activations. It is made for one plan and one largest batch, allocates once, and
//! then computes. The CPU and CUDA executors do the same arithmetic behind this trait. Nothing
//! here knows of a device: the plan is all that it depends on.

mod batch;
mod error;
mod outcome;
mod settings;

pub use batch::{Batch, Pixels};
pub(crate) use batch::{check_capacity, check_pixels, check_training};
pub use error::ExecutorError;
pub use outcome::{Outcome, Pending};
pub use settings::{Sgd, Step};

use crate::plan::Plan;

/// Which numbers of the training state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arena {
    /// Trainable parameters, in the order of [`Plan::parameters`].
    Parameters,
    /// Their gradients.
    Gradients,
    /// Their momentum.
    Momentum,
    /// Running statistics, in the order of [`Plan::parameters`].
    Running,
}

/// Runs a plan and owns its training state.
pub trait Executor: Send {
    /// The plan that it runs.
    fn plan(&self) -> &Plan;

    /// The largest batch.
    fn capacity(&self) -> usize;

    /// Copies a part of the training state out.
    ///
    /// # Errors
    /// When `into` has another length.
    fn read(&self, arena: Arena, into: &mut [f32]) -> Result<(), ExecutorError>;

    /// Copies a part of the training state in.
    ///
    /// # Errors
    /// When `from` has another length.
    fn write(&mut self, arena: Arena, from: &[f32]) -> Result<(), ExecutorError>;

    /// Forward and backward pass on a batch's statistics: the loss's gradients are in
    /// [`Arena::Gradients`] afterwards, and the running statistics are updated.
    ///
    /// Where the loss is not finite, the running statistics are again what they were before the
    /// first of the batches that are accumulated, and the gradients mean nothing.
    ///
    /// # Errors
    /// When the batch does not fit the plan, or is a single image whose last feature maps are one
    /// pixel ([`ExecutorError::OneValue`]). Nothing has changed then.
    fn differentiate(&mut self, batch: Batch<'_>, step: Step) -> Result<Outcome, ExecutorError>;

    /// Starts what [`differentiate`](Self::differentiate) does. A device may be at work when this
    /// returns: the next batch can be brought to it meanwhile, and nothing waits for the loss.
    ///
    /// A [`descend`](Self::descend) that follows while the outcome has not been asked for changes
    /// nothing if the loss turns out not to be finite, and neither do later ones, until
    /// [`finish`](Self::finish) has said so; the running statistics are then what they were before
    /// that batch, whatever was started since. An executor that is done at once
    /// ([`Pending::outcome`]) leaves that to its caller.
    ///
    /// # Errors
    /// As [`differentiate`](Self::differentiate).
    fn start(&mut self, batch: Batch<'_>, step: Step) -> Result<Pending, ExecutorError> {
        self.differentiate(batch, step).map(Pending::done)
    }

    /// Waits for a batch that was started.
    ///
    /// # Errors
    /// When the device fails, or the batch was started by another executor.
    fn finish(&mut self, pending: Pending) -> Result<Outcome, ExecutorError> {
        pending.into_outcome()
    }

    /// One step of gradient descent with the gradients at hand.
    ///
    /// # Errors
    /// When the device fails.
    fn descend(&mut self, sgd: Sgd) -> Result<(), ExecutorError>;

    /// [`start`](Self::start), and [`descend`](Self::descend) after it: a whole step, which a
    /// device does in one. Where the loss is known at once and not finite, nothing descends.
    ///
    /// # Errors
    /// As both.
    fn step(&mut self, batch: Batch<'_>, step: Step, sgd: Sgd) -> Result<Pending, ExecutorError> {
        let pending = self.start(batch, step)?;
        if pending.outcome().is_none_or(|own| own.loss.is_finite()) {
            self.descend(sgd)?;
        }
        Ok(pending)
    }

    /// Forward pass with running statistics, without dropout. The loss is not smoothed.
    ///
    /// # Errors
    /// When the batch does not fit the plan.
    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Outcome, ExecutorError>;

    /// Adds up numbers over all executors that train together
    /// ([`parallel`](crate::parallel)); one that is alone leaves them as they are.
    ///
    /// # Errors
    /// When another one has gone.
    fn total(&mut self, sums: &mut [f64]) -> Result<(), ExecutorError> {
        let _ = sums;
        Ok(())
    }

    /// Copies out the logits of the latest batch: batch x classes.
    ///
    /// # Errors
    /// When `into` has another length.
    fn logits(&self, into: &mut [f32]) -> Result<(), ExecutorError>;
}

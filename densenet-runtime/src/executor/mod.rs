//! The contract of executors, which run plans.
//!
//! An executor owns a network's whole training state: parameters, gradients, moments, averages,
//! running statistics, activations. It is made for one plan and one largest batch, allocates once, and
//! then computes. The CPU and CUDA executors implement this trait with the same arithmetic. Nothing
//! here knows about devices: this module depends only on the plan.

mod batch;
mod error;
mod group;
mod pending;
mod settings;
mod targets;

pub use batch::Batch;
#[cfg(feature = "cuda")]
pub(crate) use batch::check_outputs;
pub(crate) use batch::{
    check_capacity, check_frozen, check_length, check_maps, check_pixels, check_training,
};
pub use error::ExecutorError;
pub use group::Group;
pub use pending::Pending;
pub(crate) use settings::NORM_EPSILON;
pub use settings::{AdamW, Descent, Optimizer, Sgd, Step};
pub(crate) use targets::{check_loss_weights, check_smoothing};

pub use crate::plan::{Inference, LossWeights, MapsOf, Outcome, Outputs, Pixels, Targets};
use crate::plan::{Plan, Training};

/// A part of the training state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arena {
    /// Trainable parameters, in the order of [`Plan::parameters`].
    Parameters,
    /// Their gradients. Parameters of frozen stages have neither these nor moments, and those of
    /// frozen groups have no gradients: they are read as zeros.
    Gradients,
    /// Their momentum.
    Momentum,
    /// Running statistics, in the order of [`Plan::parameters`].
    Running,
    /// The second moments of the gradients, if the executor keeps them: for AdamW, whose first
    /// moments are the momentum.
    SecondMoments,
    /// The average (EMA) of the parameters, if the executor keeps one. It is zeros until it is
    /// written.
    Average,
    /// The average of the running statistics, likewise.
    AverageRunning,
}

impl Arena {
    /// What it is called in messages.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Parameters => "parameters",
            Self::Gradients => "gradients",
            Self::Momentum => "momentum",
            Self::Running => "running statistics",
            Self::SecondMoments => "second moments",
            Self::Average => "average of the parameters",
            Self::AverageRunning => "average of the running statistics",
        }
    }

    /// Checks that an executor keeps it.
    pub(crate) fn check_kept(self, training: Training) -> Result<(), ExecutorError> {
        let (is_kept, option) = match self {
            Self::SecondMoments => (training.second_moments, "second_moments"),
            Self::Average | Self::AverageRunning => (training.average, "average"),
            _ => return Ok(()),
        };
        if is_kept {
            return Ok(());
        }
        let what = self.what();
        Err(ExecutorError::NotKept { what, option })
    }
}

/// Runs a plan and owns its training state.
pub trait Executor: Send {
    /// The plan that this executor runs.
    fn plan(&self) -> &Plan;

    /// The largest batch size.
    fn capacity(&self) -> usize;

    /// Copies a part of the training state out.
    ///
    /// # Errors
    /// When `into` has the wrong length, or the executor does not keep this part.
    fn read(&self, arena: Arena, into: &mut [f32]) -> Result<(), ExecutorError>;

    /// Copies a part of the training state in.
    ///
    /// # Errors
    /// When `from` has the wrong length, or the executor does not keep this part.
    fn write(&mut self, arena: Arena, from: &[f32]) -> Result<(), ExecutorError>;

    /// Sets the weights of the loss, in training and in evaluation; at first all are 1. Several
    /// batches that are accumulated, and the parts of several ranks, are each divided by their own
    /// weight ([`Targets::weight`]), and then averaged.
    ///
    /// # Errors
    /// When there are not as many weights as classes, or one is negative or not finite.
    fn set_loss_weights(&mut self, weights: &LossWeights) -> Result<(), ExecutorError>;

    /// Forward and backward pass on a batch's statistics: the loss's gradients are in
    /// [`Arena::Gradients`] afterwards, and the running statistics are updated.
    ///
    /// If the loss is not finite, the running statistics are restored to what they were before the
    /// first of the accumulated batches, and the gradients are meaningless.
    ///
    /// # Errors
    /// When the batch does not fit the plan, or is a single image whose last feature maps are one
    /// pixel, unless their BNs are frozen ([`ExecutorError::OneValue`]). Nothing has changed then.
    fn differentiate(&mut self, batch: Batch<'_>, step: Step) -> Result<Outcome, ExecutorError>;

    /// Starts what [`differentiate`](Self::differentiate) does. A device may still be computing
    /// when this returns, so the next batch can be copied to it meanwhile, and nothing waits for
    /// the loss.
    ///
    /// If the loss turns out not to be finite, a [`descend`](Self::descend) that was called before
    /// the outcome was known changes nothing, and neither do later ones, until
    /// [`finish`](Self::finish) has reported the loss. The running statistics are then what they
    /// were before that batch, whatever was started since. An executor that is done at once
    /// ([`Pending::outcome`]) leaves this to its caller.
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

    /// This executor's rank among those that train together.
    fn rank(&self) -> usize {
        0
    }

    /// Gives groups of parameters their own shares of the learning rate and the weight decay, and
    /// freezes some ([`Group::frozen`](field@Group::frozen)). The groups contain each parameter once, in
    /// order. At first there is one group. They change between steps, not between batches that are
    /// accumulated.
    ///
    /// # Errors
    /// When the groups do not fit the parameters, freeze a tensor or a BN in part, or the executor
    /// supports one group only.
    fn set_groups(&mut self, groups: &[Group]) -> Result<(), ExecutorError> {
        if groups == [Group::all(self.plan().parameter_count())] {
            return Ok(());
        }
        Err(ExecutorError::Device(
            "this executor supports one group of parameters only".into(),
        ))
    }

    /// One step along the current gradients.
    ///
    /// # Errors
    /// When the device fails, or the executor was made without the second moments or the average
    /// that the step needs.
    fn descend(&mut self, descent: Descent) -> Result<(), ExecutorError>;

    /// A whole step: [`start`](Self::start), then [`descend`](Self::descend). A device does both at
    /// once. If the loss is known at once and is not finite, the descent is skipped.
    ///
    /// # Errors
    /// As both.
    fn step(
        &mut self,
        batch: Batch<'_>,
        step: Step,
        descent: Descent,
    ) -> Result<Pending, ExecutorError> {
        let pending = self.start(batch, step)?;
        if pending.outcome().is_none_or(|own| own.loss.is_finite()) {
            self.descend(descent)?;
        }
        Ok(pending)
    }

    /// Forward pass on a batch's statistics, without dropout, which moves the running statistics as
    /// [`differentiate`](Self::differentiate) does. Parameters, gradients and momentum stay as they
    /// are. Each rank moves its own.
    ///
    /// # Errors
    /// As [`differentiate`](Self::differentiate).
    fn update_statistics(&mut self, batch: Batch<'_>) -> Result<(), ExecutorError>;

    /// Forward pass with running statistics, without dropout. The loss is not smoothed.
    ///
    /// # Errors
    /// When the batch does not fit the plan.
    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Outcome, ExecutorError>;

    /// Adds up numbers over all executors that train together ([`parallel`](crate::parallel)). An
    /// executor that trains alone does not change them.
    ///
    /// # Errors
    /// When another rank was lost.
    fn total(&mut self, sums: &mut [f64]) -> Result<(), ExecutorError> {
        let _ = sums;
        Ok(())
    }

    /// The numbers of all executors that train together, one's after another's. An executor that
    /// trains alone has its own.
    ///
    /// # Errors
    /// If another rank was lost.
    fn gather(&mut self, own: &[f64]) -> Result<Vec<f64>, ExecutorError> {
        Ok(own.to_vec())
    }

    /// Copies out the logits of the latest batch: batch x classes.
    ///
    /// # Errors
    /// When `into` has the wrong length.
    fn logits(&self, into: &mut [f32]) -> Result<(), ExecutorError>;
}

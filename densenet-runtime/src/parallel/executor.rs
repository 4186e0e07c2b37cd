//! An executor that trains together with others.

use super::{Collective, step_of};
use crate::plan::Plan;
use crate::{Arena, Batch, Descent, Executor, ExecutorError, Group, LossWeights, Outcome, Step};

/// An executor that trains with others: after each batch its gradients and running statistics are
/// the averages over all ranks, and so is the loss that it reports. Top 1 and top 5 count its own
/// images.
pub struct Parallel {
    executor: Box<dyn Executor>,
    collective: Box<dyn Collective>,
    /// Gradients or statistics that are being averaged.
    values: Vec<f32>,
    /// The running statistics before the current step.
    running_before: Vec<f32>,
}

impl Parallel {
    /// Joins an executor to a collective. All ranks need equal parameters, made from the same seed
    /// or read from the same file.
    pub fn new(executor: Box<dyn Executor>, collective: Box<dyn Collective>) -> Self {
        Self {
            executor,
            collective,
            values: Vec::new(),
            running_before: Vec::new(),
        }
    }

    fn average(&mut self, arena: Arena, count: usize) -> Result<(), ExecutorError> {
        self.values.resize(count, 0.0);
        self.executor.read(arena, &mut self.values)?;
        self.collective.average(&mut self.values)?;
        self.executor.write(arena, &self.values)
    }
}

impl Executor for Parallel {
    fn plan(&self) -> &Plan {
        self.executor.plan()
    }

    fn capacity(&self) -> usize {
        self.executor.capacity()
    }

    fn read(&self, arena: Arena, into: &mut [f32]) -> Result<(), ExecutorError> {
        self.executor.read(arena, into)
    }

    fn write(&mut self, arena: Arena, from: &[f32]) -> Result<(), ExecutorError> {
        self.executor.write(arena, from)
    }

    fn set_loss_weights(&mut self, weights: &LossWeights) -> Result<(), ExecutorError> {
        self.executor.set_loss_weights(weights)
    }

    fn differentiate(&mut self, batch: Batch<'_>, step: Step) -> Result<Outcome, ExecutorError> {
        let plan = self.executor.plan();
        let (parameters, running) = (plan.parameter_count(), plan.running_count());
        if !step.accumulate {
            self.running_before.resize(running, 0.0);
            self.executor
                .read(Arena::Running, &mut self.running_before)?;
        }
        let step = step_of(step, self.collective.rank());
        let mut outcome = self.executor.differentiate(batch, step)?;
        let mut loss = [outcome.loss];
        self.collective.sum(&mut loss)?;
        // If the loss of one rank is not finite, the mean is not finite on any: all stop unchanged.
        outcome.loss = loss[0] / self.collective.world_size() as f64;
        if !outcome.loss.is_finite() {
            self.executor.write(Arena::Running, &self.running_before)?;
            return Ok(outcome);
        }
        // An accumulating step adds its own gradient to the average so far. That average is equal
        // on all ranks, so the average of these sums is the sum of the averages.
        self.average(Arena::Gradients, parameters)?;
        self.average(Arena::Running, running)?;
        Ok(outcome)
    }

    fn rank(&self) -> usize {
        self.collective.rank()
    }

    fn set_groups(&mut self, groups: &[Group]) -> Result<(), ExecutorError> {
        self.executor.set_groups(groups)
    }

    fn descend(&mut self, descent: Descent) -> Result<(), ExecutorError> {
        self.executor.descend(descent)
    }

    /// Of this rank's own part.
    fn update_statistics(&mut self, batch: Batch<'_>) -> Result<(), ExecutorError> {
        self.executor.update_statistics(batch)
    }

    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Outcome, ExecutorError> {
        self.executor.evaluate(batch)
    }

    fn logits(&self, into: &mut [f32]) -> Result<(), ExecutorError> {
        self.executor.logits(into)
    }

    fn total(&mut self, sums: &mut [f64]) -> Result<(), ExecutorError> {
        Ok(self.collective.sum(sums)?)
    }

    fn gather(&mut self, own: &[f64]) -> Result<Vec<f64>, ExecutorError> {
        Ok(self.collective.gather(own)?)
    }
}

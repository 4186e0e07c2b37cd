//! A pass over the stages of a plan, as launches. It computes the same as the CPU executor.

use super::error::CudaError;
use super::kernel::norm::BatchNorm;
use super::kernel::step::Surroundings;
use super::kernel::weights;
use super::kernels::Kernels;
use super::launch::Launcher;
use super::stage::block::Block;
use super::stage::head::{Head, Loss};
use super::stage::stem::Stem;
use super::stage::transition::Transition;
use crate::plan::Recompute;

/// A pass over the network with the current batch.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub on: Launcher<'a>,
    pub kernels: &'a Kernels,
    pub recompute: Recompute,
}

impl Pass<'_> {
    /// From the images to the logits.
    pub fn forward(&self) -> Result<(), CudaError> {
        if self.on.training {
            self.surroundings().start()?;
        }
        weights::pack(&self.on, &self.kernels.weights)?;
        let mut fresh = self.stem().forward()?;
        for index in 0..self.on.plan.blocks().len() {
            fresh = self.block(index).forward(fresh)?;
            if index < self.on.plan.transitions().len() {
                fresh = self.transition(index).forward(fresh)?;
            }
        }
        self.head().forward(fresh)
    }

    /// The loss of each image; when training, the gradient of the logits.
    pub fn loss(&self, loss: Loss) -> Result<(), CudaError> {
        self.head().loss(loss)
    }

    /// From the gradient of the logits to the gradients of the parameters.
    pub fn backward(&self) -> Result<(), CudaError> {
        let on = &self.on;
        // If the loss of one rank is not finite, no rank descends.
        on.target.complete(on.broken(), 1)?;
        let mut stages = on.offsets.stages(on.plan.parameter_count()).into_iter();
        let mut complete = || match stages.next() {
            Some((from, count)) if count > 0 => on.target.complete(on.gradient_of(from), count),
            _ => Ok(()),
        };
        self.head().backward()?;
        complete()?;
        for index in (0..on.plan.blocks().len()).rev() {
            self.block(index).backward(self.recompute)?;
            complete()?;
            if let Some(before) = index.checked_sub(1) {
                self.transition(before).backward()?;
                complete()?;
            }
        }
        self.stem().backward()?;
        complete()?;
        // The forward pass has updated the running statistics.
        let running = on.at(on.slots.running);
        on.target.complete(running, on.plan.running_count())?;
        on.target.join()
    }

    fn bn(&self) -> BatchNorm<'_> {
        BatchNorm {
            on: &self.on,
            kernels: &self.kernels.norm,
        }
    }

    fn stem(&self) -> Stem<'_> {
        Stem {
            bn: self.bn(),
            kernels: &self.kernels.stem,
            pool: self.kernels.pool.as_ref(),
        }
    }

    fn block(&self, index: usize) -> Block<'_> {
        Block {
            bn: self.bn(),
            kernels: &self.kernels.blocks[index],
            index,
        }
    }

    fn transition(&self, index: usize) -> Transition<'_> {
        Transition {
            bn: self.bn(),
            kernels: &self.kernels.transitions[index],
            index,
        }
    }

    fn head(&self) -> Head<'_> {
        Head {
            bn: self.bn(),
            kernels: &self.kernels.head,
        }
    }

    /// The images' way in, and gradient descent.
    pub fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            on: &self.on,
            kernels: &self.kernels.step,
        }
    }
}

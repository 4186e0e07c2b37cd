//! The frozen form of a network, for inference alone: the CPU crate's, with the executors' checks.

use densenet_cpu::Level;
use densenet_cpu::frozen::{Folded, FrozenOptions};

use crate::executor::{ExecutorError, Pixels, check_capacity, check_length, check_pixels};
use crate::plan::Plan;

/// A trained network for inference: weights packed, memory planned, nothing allocated in a call.
///
/// ```
/// use densenet_runtime::cpu::FrozenOptions;
/// use densenet_runtime::{ExecutorError, Network, Pixels};
///
/// fn classify<N: Network>(model: &N, image: &[f32]) -> Result<Vec<f32>, ExecutorError> {
///     let mut frozen = model.freeze(FrozenOptions::default())?;
///     Ok(frozen.infer(Pixels::Nchw(image), 1)?.to_vec())
/// }
/// ```
pub struct Frozen {
    folded: Folded,
    capacity: usize,
}

impl Frozen {
    /// Freezes trained parameters and running statistics, each in the order of
    /// [`Plan::parameters`].
    ///
    /// # Errors
    /// If the batch is empty or too large to be counted, the numbers are not as many as the
    /// plan's, or there is not enough memory.
    pub fn new(
        plan: &Plan,
        parameters: &[f32],
        running: &[f32],
        options: FrozenOptions,
    ) -> Result<Self, ExecutorError> {
        check_capacity(plan, options.batch)?;
        check_length("parameters", plan.parameter_count(), parameters.len())?;
        check_length("running statistics", plan.running_count(), running.len())?;
        let folded = Folded::new(plan, parameters, running, options);
        Ok(Self {
            folded: folded.map_err(ExecutorError::in_inference)?,
            capacity: options.batch,
        })
    }

    /// The logits of some images, at most as many as it was made for: images x classes.
    ///
    /// # Errors
    /// If the images do not fit the plan.
    pub fn infer(&mut self, pixels: Pixels<'_>, images: usize) -> Result<&[f32], ExecutorError> {
        check_pixels(self.plan().stem(), pixels, images, self.capacity)?;
        Ok(self.folded.infer(pixels, images))
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        self.folded.plan()
    }

    /// The most images of a call.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Threads that work on a call.
    pub fn threads(&self) -> usize {
        self.folded.threads()
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.folded.level()
    }

    /// The [bytes](Self::bytes) that a network takes when it is frozen with these options. Nothing
    /// is allocated; `None` if the batch is empty or too large to be counted.
    pub fn bytes_of(plan: &Plan, options: FrozenOptions) -> Option<u64> {
        check_capacity(plan, options.batch).ok()?;
        Some(Folded::bytes_of(plan, options))
    }

    /// Bytes that it holds: packed weights, activations and logits.
    pub fn bytes(&self) -> u64 {
        self.folded.bytes()
    }
}

#[cfg(test)]
mod tests;

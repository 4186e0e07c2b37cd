//! The frozen form of a network, only for inference: the CPU crate's, with the executors' checks.

use densenet_cpu::Level;
use densenet_cpu::frozen::{Folded, FrozenOptions};
use densenet_plan::{Inference, MapsOf};

use crate::executor::{
    ExecutorError, Outputs, Pixels, check_capacity, check_length, check_maps, check_pixels,
};
use crate::plan::Plan;

/// A trained network for inference, with packed weights and planned memory. A call allocates nothing.
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
    outputs: Outputs,
}

impl Frozen {
    /// Freezes trained parameters and running statistics, each in the order of
    /// [`Plan::parameters`].
    ///
    /// # Errors
    /// If the batch is empty or too large to be counted, the plan has a different number of values,
    /// or there is not enough memory.
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
            outputs: options.outputs,
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

    /// The outputs for some images, in one pass: logits, pooled features, and the maps that it was
    /// frozen for ([`FrozenOptions::outputs`]). The logits are those of [`infer`](Self::infer), bit
    /// for bit.
    ///
    /// ```
    /// use densenet_runtime::cpu::FrozenOptions;
    /// use densenet_runtime::{ExecutorError, MapsOf, Network, Outputs, Pixels};
    ///
    /// /// The most likely class of an image, and where the network saw it: a value for each pixel of
    /// /// the last feature maps.
    /// fn explain<N: Network>(net: &N, image: &[f32]) -> Result<(usize, Vec<f32>), ExecutorError> {
    ///     let mut frozen = net.freeze(FrozenOptions {
    ///         outputs: Outputs { class_maps: 1, ..Outputs::default() },
    ///         ..FrozenOptions::default()
    ///     })?;
    ///     let said = frozen.infer_with(Pixels::Nchw(image), 1, MapsOf::Top(1))?;
    ///     Ok((said.mapped[0], said.class_maps.to_vec()))
    /// }
    /// ```
    ///
    /// # Errors
    /// If the images do not fit the plan, the network has no such class, or more class maps are
    /// requested than it was frozen for.
    pub fn infer_with(
        &mut self,
        pixels: Pixels<'_>,
        images: usize,
        of: MapsOf<'_>,
    ) -> Result<Inference<'_>, ExecutorError> {
        check_pixels(self.plan().stem(), pixels, images, self.capacity)?;
        check_maps(self.plan(), self.outputs, of)?;
        Ok(self.folded.infer_with(pixels, images, of))
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

    /// Bytes that it holds: packed weights, activations and outputs.
    pub fn bytes(&self) -> u64 {
        self.folded.bytes()
    }
}

#[cfg(test)]
mod tests;

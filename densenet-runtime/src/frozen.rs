//! The frozen form of a network, on a device of either kind.

use crate::cpu::{self, FrozenOptions};
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::device::Device;
use crate::executor::{ExecutorError, Inference, MapsOf, Pixels};
use crate::plan::Plan;

/// A trained network for inference, on the CPU or on a CUDA device, with packed weights and planned memory.
///
/// ```
/// use densenet_runtime::cpu::FrozenOptions;
/// use densenet_runtime::{Device, ExecutorError, Network, Pixels};
///
/// fn classify<N: Network>(
///     model: &N,
///     image: &[f32],
///     device: &Device,
/// ) -> Result<Vec<f32>, ExecutorError> {
///     let mut frozen = model.freeze_on(device, FrozenOptions::default())?;
///     Ok(frozen.infer(Pixels::Nchw(image), 1)?.to_vec())
/// }
/// ```
#[non_exhaustive]
pub enum Frozen {
    /// On the CPU.
    Cpu(Box<cpu::Frozen>),
    /// On a CUDA device.
    #[cfg(feature = "cuda")]
    Cuda(Box<cuda::Frozen>),
}

impl Frozen {
    /// Freezes trained parameters and running statistics, each in the order of
    /// [`Plan::parameters`]. The options for threads and instruction set apply only to the CPU.
    ///
    /// # Errors
    /// If the batch is empty or too large to be counted, the plan has a different number of values,
    /// there is not enough memory, or a CUDA device fails.
    pub fn on(
        device: &Device,
        plan: &Plan,
        parameters: &[f32],
        running: &[f32],
        options: FrozenOptions,
    ) -> Result<Self, ExecutorError> {
        Ok(match device {
            Device::Cpu => {
                let frozen = cpu::Frozen::new(plan, parameters, running, options);
                Self::Cpu(Box::new(frozen?))
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => {
                let options = cuda::FrozenOptions {
                    precision: options.precision,
                    outputs: options.outputs,
                    ..cuda::FrozenOptions::for_batch(options.batch)
                };
                let frozen = cuda::Frozen::new(device, plan, parameters, running, options);
                Self::Cuda(Box::new(frozen?))
            }
        })
    }

    /// The logits of some images, at most as many as it was made for: images x classes.
    ///
    /// # Errors
    /// If the images do not fit the plan, or the device fails.
    pub fn infer(&mut self, pixels: Pixels<'_>, images: usize) -> Result<&[f32], ExecutorError> {
        match self {
            Self::Cpu(own) => own.infer(pixels, images),
            #[cfg(feature = "cuda")]
            Self::Cuda(own) => own.infer(pixels, images),
        }
    }

    /// The outputs for some images, in one pass: logits, pooled features, and the maps that it was
    /// frozen for ([`FrozenOptions::outputs`]). The logits are those of [`infer`](Self::infer), bit
    /// for bit.
    ///
    /// # Errors
    /// If the images do not fit the plan, the network has no such class, more class maps are
    /// requested than it was frozen for, or the device fails.
    pub fn infer_with(
        &mut self,
        pixels: Pixels<'_>,
        images: usize,
        of: MapsOf<'_>,
    ) -> Result<Inference<'_>, ExecutorError> {
        match self {
            Self::Cpu(own) => own.infer_with(pixels, images, of),
            #[cfg(feature = "cuda")]
            Self::Cuda(own) => own.infer_with(pixels, images, of),
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        match self {
            Self::Cpu(own) => own.plan(),
            #[cfg(feature = "cuda")]
            Self::Cuda(own) => own.plan(),
        }
    }

    /// The most images of a call.
    pub fn capacity(&self) -> usize {
        match self {
            Self::Cpu(own) => own.capacity(),
            #[cfg(feature = "cuda")]
            Self::Cuda(own) => own.capacity(),
        }
    }

    /// Bytes that it holds in its device's memory: packed weights, activations and outputs.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Cpu(own) => own.bytes(),
            #[cfg(feature = "cuda")]
            Self::Cuda(own) => own.bytes(),
        }
    }
}

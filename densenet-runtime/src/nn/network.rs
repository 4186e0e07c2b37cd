//! What every generated network has in common.

use std::path::Path;

use dfdx::prelude::*;
use dfdx::tensor::CpuError;

use super::{Batched, ForwardError, SameShapes};
use crate::cpu::{Frozen, FrozenOptions};
use crate::plan::Plan;
use crate::weights::{LoadOptions, LoadReport, State, TensorFile, WeightsError};
use crate::{Device, ExecutorError};

/// A network that `densenet!` made. The macro implements it.
///
/// A bound on it is all that generic code needs: `forward` for inference and `forward_mut` for
/// training, both of dfdx.
///
/// ```
/// use densenet_runtime::dfdx::prelude::*;
/// use densenet_runtime::nn::{ForwardError, cross_entropy};
/// use densenet_runtime::{Network, densenet};
///
/// /// Logits of images in [0, 1], batch x channels x height x width: batch x classes.
/// fn classify<N: Network>(net: &N, pixels: Vec<f32>) -> Result<Vec<f32>, ForwardError> {
///     Ok(net.try_forward(N::images(pixels)?)?.as_vec())
/// }
///
/// fn gradients<N: Network>(
///     net: &mut N,
///     images: Tensor<N::Images, f32, Cpu>,
///     labels: Tensor<N::Logits, f32, Cpu>,
/// ) -> Gradients<f32, Cpu> {
///     let logits = net.forward_mut(images.traced(net.alloc_grads()));
///     cross_entropy(logits, labels).backward()
/// }
///
/// densenet! { Flowers { blocks: [2, 2], k: 4, classes: 17, input: [3, 8, 8] } }
///
/// let mut net = Cpu::default().build_module::<Flowers, f32>();
/// assert_eq!(classify(&net, vec![0.5; 2 * 3 * 8 * 8])?.len(), 2 * 17);
/// let labels = Cpu::default().ones_like(&(2, Const));
/// gradients(&mut net, Flowers::images(vec![0.5; 2 * 3 * 8 * 8])?, labels);
/// # Ok::<(), ForwardError>(())
/// ```
pub trait Network:
    TensorCollection<f32, Cpu, To<f32, Cpu> = Self>
    + BuildModule<Cpu, f32>
    + Module<
        Tensor<<Self as Network>::Images, f32, Cpu>,
        Output = Tensor<<Self as Network>::Logits, f32, Cpu>,
        Error = CpuError,
    > + ModuleMut<
        Tensor<<Self as Network>::Images, f32, Cpu, OwnedTape<f32, Cpu>>,
        Output = Tensor<<Self as Network>::Logits, f32, Cpu, OwnedTape<f32, Cpu>>,
        Error = ForwardError,
    >
{
    /// The name of the type.
    const NAME: &'static str;
    /// The names of the classes, in the order of their labels; empty if the spec gives only their
    /// number. Data, weights and checkpoints with other names, or with the same in another order,
    /// are refused.
    const CLASSES: &'static [&'static str] = &[];
    /// The shapes of its stages.
    const PLAN: Plan;
    /// The shape of a batch of images: batch x channels x height x width.
    type Images: Batched<Batch = usize, Concrete = [usize; 4]>;
    /// The shape of a batch's logits: batch x classes.
    type Logits: Batched<Batch = usize, Concrete = [usize; 2]>;
    /// The shapes of all tensors before the classifier, as a type: a tuple of the stages' own.
    type Features;

    /// A tensor of images for `forward`, from normalised pixels: batch x channels x height x width.
    ///
    /// # Errors
    /// If the number of pixels is not that of one or more whole images.
    fn images(pixels: Vec<f32>) -> Result<Tensor<Self::Images, f32, Cpu>, ForwardError> {
        let plan = Self::PLAN;
        let stem = plan.stem();
        let shape = [stem.channels, stem.height, stem.width];
        let image: usize = shape.iter().product();
        let labels = pixels.len().div_ceil(image).max(1);
        if pixels.len() != labels * image {
            return Err(ForwardError::Batch(ExecutorError::Pixels {
                labels,
                shape,
                expected: labels * image,
                found: pixels.len(),
            }));
        }
        let shape = Self::Images::from_concrete(&[labels, shape[0], shape[1], shape[2]]);
        let shape = shape.ok_or(CpuError::WrongNumElements)?;
        Ok(Cpu::default().try_tensor_from_vec(pixels, shape)?)
    }

    /// Reads the weights and running statistics of a file: safetensors or PyTorch's own format, under
    /// torchvision's names, or a checkpoint (see [`State::read`]).
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, holds numbers that no network has, or does not
    /// fit this one. Nothing has changed then.
    fn load_weights(&mut self, path: impl AsRef<Path>) -> Result<(), WeightsError> {
        State::read(&Self::PLAN, path)?.store_into(self)
    }

    /// Reads a file from any library, and reports which tensors it used: see [`State::load`]. With
    /// `features_only` the classifier keeps its own weights.
    ///
    /// ```no_run
    /// use densenet_runtime::prelude::*;
    /// use densenet_runtime::weights::LoadOptions;
    ///
    /// densenet! { Flowers { blocks: [6, 12, 24, 16], k: 32, theta: 0.5, bottleneck, classes: 17 } }
    ///
    /// let mut flowers = Cpu::default().build_module::<Flowers, f32>();
    /// let options = LoadOptions { features_only: true, ..LoadOptions::default() };
    /// let report = flowers.load_weights_with("densenet121-a639ec97.pth", &options)?;
    /// # Ok::<(), densenet_runtime::weights::WeightsError>(())
    /// ```
    ///
    /// # Errors
    /// As [`load_weights`](Self::load_weights). Other tensors in the file are not an error.
    fn load_weights_with(
        &mut self,
        path: impl AsRef<Path>,
        options: &LoadOptions,
    ) -> Result<LoadReport, WeightsError> {
        let file = TensorFile::read(path)?;
        let (mut state, report) = State::load(&Self::PLAN, &file, options)?;
        if options.features_only {
            let features = Self::PLAN.tensors().head.weight.start;
            let own = State::of(self);
            state.parameters[features..].copy_from_slice(&own.parameters[features..]);
        }
        state.store_into(self)?;
        Ok(report)
    }

    /// Writes the weights and running statistics to a file that torchvision's `load_state_dict`
    /// takes: for `torch.load` if it is called `.pth`, `.pt` or `.bin`, else safetensors. The file
    /// is written completely or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    fn save_weights(&self, path: impl AsRef<Path>) -> Result<(), WeightsError> {
        State::of(self).write(&Self::PLAN, path)
    }

    /// The frozen form of the network, which is only for inference: several times as fast as `forward`.
    ///
    /// # Errors
    /// If the batch is empty or too large to be counted, or there is not enough memory.
    fn freeze(&self, options: FrozenOptions) -> Result<Frozen, ExecutorError> {
        let state = State::of(self);
        Frozen::new(&Self::PLAN, &state.parameters, &state.running, options)
    }

    /// The frozen form on a device: the same logits from the CPU or from a CUDA device.
    ///
    /// ```no_run
    /// use densenet_runtime::prelude::*;
    ///
    /// densenet! { Flowers { blocks: [6, 12, 24, 16], k: 32, theta: 0.5, bottleneck, classes: 17 } }
    ///
    /// let mut flowers = Cpu::default().build_module::<Flowers, f32>();
    /// flowers.load_weights("flowers.safetensors")?;
    /// let device = Device::best();
    /// let mut frozen = flowers.freeze_on(&device.device, FrozenOptions::for_batch(32))?;
    /// let logits = frozen.infer(Pixels::Nchw(&vec![0.0; 32 * 3 * 224 * 224]), 32)?;
    /// assert_eq!(logits.len(), 32 * 17);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`freeze`](Self::freeze); and if a CUDA device fails.
    fn freeze_on(
        &self,
        device: &Device,
        options: FrozenOptions,
    ) -> Result<crate::Frozen, ExecutorError> {
        let state = State::of(self);
        crate::Frozen::on(
            device,
            &Self::PLAN,
            &state.parameters,
            &state.running,
            options,
        )
    }

    /// Transfer learning: copies all parameters and running statistics but the classifier's from
    /// a network with the same layers, which may have other classes and images of another size.
    /// The classifier keeps its own.
    ///
    /// ```
    /// use densenet_runtime::dfdx::prelude::*;
    /// use densenet_runtime::{Network, densenet};
    ///
    /// densenet! { Pretrained { blocks: [2, 2], k: 4, classes: 100 } }
    /// densenet! { Flowers { blocks: [2, 2], k: 4, classes: 17, input: [3, 64, 64] } }
    ///
    /// let dev = Cpu::default();
    /// // From a file, say: `pretrained.load_weights("weights.safetensors")?`.
    /// let pretrained = dev.build_module::<Pretrained, f32>();
    /// let mut flowers = dev.build_module::<Flowers, f32>();
    /// flowers.transplant_features(&pretrained)?;
    /// let [ours, theirs] = [&flowers.stem.conv, &pretrained.stem.conv];
    /// assert_eq!(ours.weight.array(), theirs.weight.array());
    /// # Ok::<(), densenet_runtime::weights::WeightsError>(())
    /// ```
    ///
    /// Single stages and layers are copied by [`Transplant`](crate::nn::Transplant).
    ///
    /// # Errors
    /// If a tensor was replaced by a broadcast or permuted view.
    fn transplant_features<N>(&mut self, from: &N) -> Result<(), WeightsError>
    where
        N: Network,
        N::Features: SameShapes<Self::Features, N, Self>,
    {
        let mut state = State::of(self);
        let from = State::of(from);
        // The classifier comes last, and has no running statistics.
        let features = Self::PLAN.tensors().head.weight.start;
        state.parameters[..features].copy_from_slice(&from.parameters[..features]);
        state.running = from.running;
        state.store_into(self)
    }
}

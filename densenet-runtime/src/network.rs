//! What every generated network has in common.

use dfdx::prelude::{BuildModule, Cpu, TensorCollection};

use crate::cpu::{Frozen, FrozenOptions};
use crate::executor::ExecutorError;
use crate::nn::Fit;
use crate::plan::Plan;
use crate::weights::{State, WeightsError};

/// A network that `densenet!` made. The macro implements it.
pub trait Network: TensorCollection<f32, Cpu, To<f32, Cpu> = Self> + BuildModule<Cpu, f32> {
    /// The name of the type.
    const NAME: &'static str;
    /// The names of the classes, in the order of their labels; none if the spec gives only their
    /// number. Data, weights and checkpoints with other names, or with the same in another order,
    /// are refused.
    const CLASSES: &'static [&'static str] = &[];
    /// The shapes of its stages.
    const PLAN: Plan;
    /// The shapes of all tensors before the classifier, as a type: a tuple of the stages' own.
    type Features;

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
    /// // Of a file, say: `State::read(&Pretrained::PLAN, "weights.safetensors")?.store_into(..)`.
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
    /// When a tensor was replaced by a broadcast or permuted view.
    fn transplant_features<N>(&mut self, from: &N) -> Result<(), WeightsError>
    where
        N: Network,
        N::Features: Fit<Self::Features, N, Self>,
    {
        let mut state = State::of(self);
        let from = State::of(from);
        // The classifier comes last, and has no running statistics.
        let features = Self::PLAN.tensors().head.weight.start;
        state.parameters[..features].copy_from_slice(&from.parameters[..features]);
        state.running = from.running;
        state.store_into(self)
    }

    /// The network in its form for inference alone: weights packed, memory planned.
    ///
    /// # Errors
    /// When the batch is empty or too large to be counted, or there is not enough memory.
    fn freeze(&self, options: FrozenOptions) -> Result<Frozen, ExecutorError> {
        let state = State::of(self);
        Frozen::new(&Self::PLAN, &state.parameters, &state.running, options)
    }
}

//! Moves a typed model's tensors to and from arenas.

use dfdx::nn::tensor_collection::TensorCollection;
use dfdx::prelude::Cpu;

use super::tensors::{each_tensor, each_tensor_mut};
use super::{State, WeightsError};

impl State {
    /// The state of a model: a network, or a part of one.
    pub fn of<M: TensorCollection<f32, Cpu>>(model: &M) -> Self {
        let mut state = Self::default();
        state.append(model);
        state
    }

    /// Appends the state of another part.
    pub(crate) fn append<M: TensorCollection<f32, Cpu>>(&mut self, model: &M) {
        each_tensor(model, |visited| {
            let arena = if visited.is_trainable {
                &mut self.parameters
            } else {
                &mut self.running
            };
            arena.extend(visited.tensor.values());
        });
    }

    /// Copies the state into a model with the same shapes. The tensors keep their identities, so
    /// gradients and optimisers that refer to them stay valid.
    ///
    /// # Errors
    /// When the sizes differ (the model is then unchanged), or a tensor of the model is a view.
    pub fn store_into<M: TensorCollection<f32, Cpu>>(
        &self,
        model: &mut M,
    ) -> Result<(), WeightsError> {
        let present = Self::of(model);
        self.check_lengths(present.parameters.len(), present.running.len())?;
        let (mut parameters, mut running) = (&self.parameters[..], &self.running[..]);
        each_tensor_mut(model, &mut |is_trainable, tensor| {
            let rest = if is_trainable {
                &mut parameters
            } else {
                &mut running
            };
            let (values, others) = rest.split_at(tensor.elements());
            *rest = others;
            if tensor.store(values) {
                return Ok(());
            }
            Err(WeightsError::View {
                shape: tensor.dimensions(),
            })
        })
    }
}

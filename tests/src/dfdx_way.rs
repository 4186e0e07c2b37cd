//! Gradients out of dfdx.

use densenet_runtime::weights::each_tensor;
use dfdx::nn::tensor_collection::TensorCollection;
use dfdx::prelude::{Cpu, Gradients};

/// The gradients of a model's trainable tensors, in the order of its parameters.
///
/// # Panics
/// If the device is out of memory.
pub fn arena<M: TensorCollection<f32, Cpu>>(
    model: &M,
    gradients: &Gradients<f32, Cpu>,
) -> Vec<f32> {
    let mut gradients = gradients.clone();
    let mut arena = Vec::new();
    each_tensor(model, |visited| {
        if visited.is_trainable {
            arena.extend_from_slice(visited.tensor.slot()(&mut gradients).unwrap());
        }
    });
    arena
}

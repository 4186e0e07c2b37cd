//! The loss of a network's logits.

use dfdx::losses::cross_entropy_with_logits_loss;
use dfdx::prelude::*;

use super::Batched;

/// Mean cross-entropy of logits against labels, both batch x classes.
///
/// Call it as `DenseNet201::cross_entropy`: its compile error for the classes of another network is
/// in plain words.
///
/// # Panics
/// If batch sizes that are known only at run time differ, or the device is out of memory.
pub fn cross_entropy<S, L, T>(
    logits: Tensor<S, f32, Cpu, T>,
    labels: Tensor<L, f32, Cpu>,
) -> Tensor<Rank0, f32, Cpu, T>
where
    S: Batched,
    L: Batched<Batch = S::Batch>,
    T: Tape<f32, Cpu>,
{
    let shape = *logits.shape();
    let (images, labelled) = (shape.concrete(), labels.shape().concrete());
    assert!(
        images.into_iter().eq(labelled),
        "logits of shape {images:?} (images, classes), but labels of shape {labelled:?}"
    );
    cross_entropy_with_logits_loss(logits, labels.reshape_like(&shape))
}

//! Why a stage could not train.

use std::fmt::{self, Debug, Formatter};

use dfdx::tensor::CpuError;

use crate::executor::ExecutorError;

/// Why `forward_mut` could not run.
///
/// dfdx's tuples take modules of one error type. So a stage that trains together with dfdx's own
/// layers goes into a struct, not into a tuple; in inference both have dfdx's error type.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// dfdx's device failed, or a tensor does not have the stage's shape.
    #[error(transparent)]
    Device(#[from] CpuError),
    /// The batch is empty.
    #[error("the batch has no images")]
    Empty,
    /// A parameter or running statistic is a view. It could not be updated, and its gradient would
    /// not have its shape.
    #[error(
        "a tensor of shape {shape:?} in the network is a broadcast or permuted view; assign one with memory of its own"
    )]
    View {
        /// The tensor's dimensions.
        shape: Vec<usize>,
    },
    /// The network cannot be trained on this batch.
    #[error(transparent)]
    Batch(#[from] ExecutorError),
}

/// The message, since dfdx's `forward_mut` panics with the debug form.
impl Debug for ForwardError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

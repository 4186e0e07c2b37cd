//! Why a stage could not train.

use std::fmt::{self, Debug, Formatter};

use dfdx::tensor::CpuError;

use crate::executor::ExecutorError;

/// Why `forward_mut` could not run.
///
/// dfdx's tuples take modules of one error type, so that a stage that trains beside layers of
/// dfdx's own stands in a struct, not in a tuple; for inference both have dfdx's.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// dfdx's device failed, or a tensor has other shapes than the stage.
    #[error(transparent)]
    Device(#[from] CpuError),
    /// There is nothing to train on.
    #[error("the batch has no images")]
    Empty,
    /// The batch cannot train the network.
    #[error(transparent)]
    Batch(#[from] ExecutorError),
}

/// In words, as it is what dfdx's `forward_mut` panics with.
impl Debug for ForwardError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

//! The target of a pass over a network: a device that computes it, or paper that counts it.

use super::driver::{Address, Launch};
use super::error::CudaError;

/// Takes launches, in their order.
pub(super) trait LaunchTarget {
    /// Launches a kernel.
    fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError>;

    /// Fills bytes with zeros.
    fn clear(&self, at: Address, bytes: usize) -> Result<(), CudaError>;

    /// `count` f32, gradients or statistics, are complete: ranks that train together average them
    /// while the pass goes on.
    fn complete(&self, at: Address, count: usize) -> Result<(), CudaError> {
        let _ = (at, count);
        Ok(())
    }

    /// What follows needs the averages of all that is complete.
    fn join(&self) -> Result<(), CudaError> {
        Ok(())
    }
}

//! What a pass over a network is asked of: a device that does it, or paper that counts it.

use super::driver::{Address, CudaDevice, Launch};
use super::error::CudaError;

/// Takes launches, in their order.
pub(super) trait Target {
    /// Launches a kernel.
    fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError>;

    /// Fills bytes with zeros.
    fn clear(&self, at: Address, bytes: usize) -> Result<(), CudaError>;

    /// So many f32, gradients or statistics, are complete: those who train with others average
    /// them, while the pass goes on.
    fn complete(&self, at: Address, count: usize) -> Result<(), CudaError> {
        let _ = (at, count);
        Ok(())
    }

    /// What comes next needs all that is complete.
    fn join(&self) -> Result<(), CudaError> {
        Ok(())
    }
}

impl Target for CudaDevice {
    fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        self.launch(launch)
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<(), CudaError> {
        self.clear(at, bytes)
    }
}

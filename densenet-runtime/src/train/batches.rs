//! Where batches come from.

use std::error::Error;
use std::ops::ControlFlow;

use crate::Batch;

/// Batches of images, epoch after epoch, the same for the same epoch each time.
pub trait Batches {
    /// Batches of an epoch.
    fn batches(&self) -> u64;

    /// Hands the batches of an epoch, from batch `first` on, to `each`, until it breaks or none
    /// is left.
    ///
    /// # Errors
    /// When images cannot be read.
    fn visit(
        &self,
        epoch: u32,
        first: u64,
        each: &mut dyn FnMut(Batch<'_>) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>>;
}

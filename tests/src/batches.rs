//! Batches for the trainer, made by a function.

use std::error::Error;
use std::ops::ControlFlow;

use densenet_runtime::Batch;
use densenet_runtime::train::Batches;

/// Takes a batch; breaks if no more are wanted.
pub type Take<'a> = dyn FnMut(Batch<'_>) -> ControlFlow<()> + 'a;

/// Batches of an epoch, each made by `make` from the epoch and the batch's number, and passed on.
pub struct Made<F> {
    /// The number of batches.
    pub count: u64,
    /// Makes the batch of an epoch and a number, and passes it on.
    pub make: F,
}

impl<F: Fn(u32, u64, &mut Take<'_>) -> ControlFlow<()>> Batches for Made<F> {
    fn batches(&self) -> u64 {
        self.count
    }

    fn visit(
        &self,
        epoch: u32,
        first: u64,
        each: &mut dyn FnMut(Batch<'_>, usize) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        for number in first..self.count {
            if (self.make)(epoch, number, &mut |batch| each(batch, 1)).is_break() {
                break;
            }
        }
        Ok(())
    }
}

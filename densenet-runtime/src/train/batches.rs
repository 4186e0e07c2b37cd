//! Where batches come from.

use std::error::Error;
use std::ops::ControlFlow;

use crate::Batch;
#[cfg(feature = "data")]
use crate::data::Loader;

/// Batches of images, epoch after epoch, the same for the same epoch each time.
pub trait Batches {
    /// Batches of an epoch.
    fn batches(&self) -> u64;

    /// The names of the classes, where they have any; a label is an index into them. They go into
    /// checkpoints, and a run does not go on with others.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// Hands the batches of an epoch, from batch `first` on, to `each`, until it breaks or none
    /// is left. With a batch goes the number of views of each image, which lie one after another
    /// in it: 1, or more in evaluation (the paper's ten crops), where their logits are averaged.
    ///
    /// # Errors
    /// When images cannot be read.
    fn visit(
        &self,
        epoch: u32,
        first: u64,
        each: &mut dyn FnMut(Batch<'_>, usize) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>>;
}

#[cfg(feature = "data")]
impl Batches for Loader {
    fn batches(&self) -> u64 {
        self.batches() as u64
    }

    fn classes(&self) -> &[String] {
        self.dataset().classes()
    }

    fn visit(
        &self,
        epoch: u32,
        first: u64,
        each: &mut dyn FnMut(Batch<'_>, usize) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let first = usize::try_from(first)?;
        for batch in self.epoch_from(u64::from(epoch), first) {
            let batch = batch?;
            let normalization = self.dataset().normalization();
            if each(batch.as_batch(normalization), batch.views).is_break() {
                break;
            }
        }
        Ok(())
    }
}

//! Sources of batches.

use std::error::Error;
use std::ops::ControlFlow;

#[cfg(feature = "data")]
use crate::data::Loader;
use crate::{Batch, Normalization};

/// Batches of images for every epoch. An epoch always has the same batches.
pub trait Batches {
    /// The number of batches of an epoch.
    fn batches(&self) -> u64;

    /// The names of the classes, or none if they have no names. A label is an index into them. They
    /// are written to checkpoints, and a run cannot be resumed with other classes.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// How the images are normalised, if they are bytes. It belongs to the weights: it is written to
    /// checkpoints, and a run cannot be resumed with images that are normalised in another way.
    fn normalization(&self) -> Option<&Normalization> {
        None
    }

    /// Passes the batches of an epoch, from batch `first` on, to `each`, until it breaks or no
    /// batch is left. `each` also gets the number of views of each image, which are consecutive in
    /// the batch: 1, or more in evaluation (the paper's ten crops), which averages their logits.
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

    fn normalization(&self) -> Option<&Normalization> {
        Some(self.dataset().normalization())
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

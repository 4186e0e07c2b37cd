//! The order in which an epoch serves its images.

use std::ops::Range;

use super::{Loader, Shard};
use crate::data::Rng;

/// Takes the place of an image's index when the order itself is drawn.
const ORDER: u64 = u64::MAX;

/// Takes the place of the highest bit of an image's index, which none has, where numbers are drawn
/// for a batch.
const BATCHES: u64 = 1 << 63;

/// The order of an epoch's images.
pub(super) struct Order {
    /// The image at each position; `None` in the dataset's order.
    images: Option<Vec<u32>>,
    /// Seeds the images' augmentation; `None` without it.
    augmentation: Option<(u64, u64)>,
    served: usize,
    batch: usize,
    shard: Shard,
}

impl Order {
    pub(super) fn new(loader: &Loader, epoch: u64) -> Self {
        let images = loader.training.then(|| {
            let mut images: Vec<u32> = (0..).take(loader.dataset.len()).collect();
            Rng::new(loader.seed, epoch, ORDER).shuffle(&mut images);
            images
        });
        Self {
            images,
            augmentation: loader.training.then_some((loader.seed, epoch)),
            served: loader.own().min(loader.batches() * loader.batch),
            batch: loader.batch,
            shard: loader.shard,
        }
    }

    /// The positions of a batch among those that are served; empty after the last batch.
    pub(super) fn positions(&self, batch: usize) -> Range<usize> {
        let clamp = |batch: usize| batch.saturating_mul(self.batch).min(self.served);
        clamp(batch)..clamp(batch + 1)
    }

    /// The image at a position.
    pub(super) fn image(&self, position: usize) -> usize {
        let Shard { rank, world_size } = self.shard;
        match &self.images {
            // The batch of all ranks, of which this rank's is a part.
            Some(images) => {
                let (batch, inside) = (position / self.batch, position % self.batch);
                images[(batch * world_size + rank) * self.batch + inside] as usize
            }
            None => position * world_size + rank,
        }
    }

    /// The random numbers of what is done to a batch as a whole; each rank has its own.
    pub(super) fn batch_rng(&self, batch: usize) -> Option<Rng> {
        let (seed, epoch) = self.augmentation?;
        let Shard { rank, world_size } = self.shard;
        Some(Rng::new(
            seed,
            epoch,
            BATCHES | (batch * world_size + rank) as u64,
        ))
    }

    /// The random numbers of an image's augmentation.
    pub(super) fn rng(&self, image: usize) -> Option<Rng> {
        let (seed, epoch) = self.augmentation?;
        Some(Rng::new(seed, epoch, image as u64))
    }
}

//! The order in which an epoch serves its images.

use std::ops::Range;

use super::{Loader, Shard};
use crate::data::Rng;

/// Replaces an image's index when the order itself is drawn.
const ORDER: u64 = u64::MAX;

/// A bit that no image's index has, set when numbers are drawn for a batch.
const BATCHES: u64 = 1 << 63;

/// The order of an epoch's images.
pub(super) struct Order {
    /// The image at each place of the epoch of all ranks; `None` in the dataset's order.
    images: Option<Vec<u32>>,
    /// Seeds the images' augmentation; `None` without it.
    augmentation: Option<(u64, u64)>,
    /// Whether an image may occur several times.
    repeats: bool,
    served: usize,
    batch: usize,
    shard: Shard,
}

impl Order {
    pub(super) fn new(loader: &Loader, epoch: u64) -> Self {
        let mut rng = Rng::new(loader.seed, epoch, ORDER);
        let count = loader.dataset.len();
        let images = loader.training.then(|| match &loader.strata {
            Some(strata) => drawn(strata, count, &mut rng),
            None => {
                let mut images: Vec<u32> = (0..).take(count).collect();
                rng.shuffle(&mut images);
                images
            }
        });
        Self {
            images,
            repeats: loader.strata.is_some(),
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
            Some(images) => images[self.place(position)] as usize,
            None => position * world_size + rank,
        }
    }

    /// The index of a position in the epoch of all ranks; this rank's batch is a part of theirs.
    const fn place(&self, position: usize) -> usize {
        let Shard { rank, world_size } = self.shard;
        let (batch, inside) = (position / self.batch, position % self.batch);
        (batch * world_size + rank) * self.batch + inside
    }

    /// The random numbers for a whole batch; each rank has its own.
    pub(super) fn batch_rng(&self, batch: usize) -> Option<Rng> {
        let (seed, epoch) = self.augmentation?;
        let Shard { rank, world_size } = self.shard;
        Some(Rng::new(
            seed,
            epoch,
            BATCHES | (batch * world_size + rank) as u64,
        ))
    }

    /// The random numbers for augmenting the image at a position. An image that occurs several
    /// times gets new ones each time.
    pub(super) fn rng(&self, position: usize) -> Option<Rng> {
        let (seed, epoch) = self.augmentation?;
        let index = match self.repeats {
            true => self.place(position),
            false => self.image(position),
        };
        Some(Rng::new(seed, epoch, index as u64))
    }
}

/// Draws images, each from a stratum that is drawn first.
fn drawn(strata: &[Vec<u32>], count: usize, rng: &mut Rng) -> Vec<u32> {
    let mut draw = || {
        let stratum = &strata[rng.below(strata.len())];
        stratum[rng.below(stratum.len())]
    };
    (0..count).map(|_| draw()).collect()
}

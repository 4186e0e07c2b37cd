//! Which images an epoch serves, and when.

use std::ops::Range;

use super::{Loader, Shard};
use crate::data::Draw;

/// Stands for no image, to draw the order of an epoch.
const ORDER: u64 = u64::MAX;

/// The order of an epoch's images.
pub(super) struct Order {
    /// The image at each position; without it each is at its own.
    images: Option<Vec<u32>>,
    /// Seeds the images' variation; without it they are served as they are.
    variation: Option<(u64, u64)>,
    served: usize,
    batch: usize,
    shard: Shard,
}

impl Order {
    pub(super) fn new(loader: &Loader, epoch: u64) -> Self {
        let images = loader.training.then(|| {
            let mut images: Vec<u32> = (0..).take(loader.dataset.len()).collect();
            Draw::new(loader.seed, epoch, ORDER).shuffle(&mut images);
            images
        });
        Self {
            images,
            variation: loader.training.then_some((loader.seed, epoch)),
            served: loader.own().min(loader.batches() * loader.batch),
            batch: loader.batch,
            shard: loader.shard,
        }
    }

    /// The positions of a batch among those that are served; none behind the last.
    pub(super) fn positions(&self, batch: usize) -> Range<usize> {
        let clamp = |batch: usize| batch.saturating_mul(self.batch).min(self.served);
        clamp(batch)..clamp(batch + 1)
    }

    /// The image at a position.
    pub(super) fn image(&self, position: usize) -> usize {
        let Shard { rank, size } = self.shard;
        match &self.images {
            // A batch of all parts, of which this is one.
            Some(images) => {
                let (batch, inside) = (position / self.batch, position % self.batch);
                images[(batch * size + rank) * self.batch + inside] as usize
            }
            None => position * size + rank,
        }
    }

    /// The random numbers of an image.
    pub(super) fn draw(&self, image: usize) -> Option<Draw> {
        let (seed, epoch) = self.variation?;
        Some(Draw::new(seed, epoch, image as u64))
    }
}

//! Prefetches a dataset in the background and serves it in batches.
//!
//! An [`Epoch`] distributes images to its workers. Each batch is assembled under a lock that a
//! worker holds only while it copies an image in, and is served in turn. An image's augmentation
//! depends only on seed, epoch and image, so the batches are the same for any number of workers,
//! and an epoch can be resumed at any batch.

mod batch;
mod epoch;
mod mix;
mod order;
mod worker;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{DataError, Dataset, Depth, balance};
use crate::parallel::Ranks;
use crate::tell;
use batch::Recycled;
use order::Order;

/// Why ranks do not train on the images left at the end of an epoch.
const UNEQUAL: &str =
    "`keep_last` would make the parts of the ranks unequal in training; leave it out";

pub use batch::{LoadedBatch, LoadedPixels, LoadedTargets};
pub use epoch::Epoch;
pub use mix::Mix;

/// What to do about images that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBroken {
    /// The epoch ends with the image's error.
    #[default]
    Fail,
    /// The image is reported once. In training a random image replaces it, so that batches stay
    /// full; evaluation leaves it out.
    Skip,
}

/// An image that was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedImage {
    /// The image's index in the dataset.
    pub index: usize,
    /// Why it could not be read; names its file.
    pub reason: String,
}

/// Serves a dataset in batches, epoch by epoch.
///
/// ```no_run
/// use std::sync::Arc;
/// use densenet_runtime::data::{ImageFolder, Loader};
///
/// # fn main() -> Result<(), densenet_runtime::data::DataError> {
/// let (train, val) = ImageFolder::train_and_val("pictures", [224, 224])?;
/// let train = Loader::training(Arc::new(train), 64)?.seeded(1);
/// for epoch in 0..90 {
///     for batch in train.epoch(epoch) {
///         let batch = batch?;
///         println!("{} images of {:?}", batch.size(), train.dataset().shape());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Loader {
    dataset: Arc<dyn Dataset>,
    batch: usize,
    training: bool,
    keep_last: bool,
    seed: u64,
    mix: Mix,
    /// Classes of the probabilities that mixed images have.
    classes: usize,
    workers: usize,
    prefetch: usize,
    on_broken: OnBroken,
    reports: Arc<Reports>,
    buffers: Arc<Recycled>,
    shard: Shard,
    /// The images of each class, if classes are balanced.
    strata: Option<Arc<[Vec<u32>]>>,
}

/// The part of each epoch that this process serves.
#[derive(Clone, Copy, Debug)]
struct Shard {
    rank: usize,
    world_size: usize,
}

impl Loader {
    /// Serves images in random order and augmented, in batches of `batch`. Images left at the end
    /// of an epoch that do not fill a batch are dropped, unless there are no others.
    ///
    /// # Errors
    /// When `batch` is 0 or the dataset has no images.
    pub fn training(dataset: Arc<dyn Dataset>, batch: usize) -> Result<Self, DataError> {
        Self::new(dataset, batch, true)
    }

    /// Serves every image in the dataset's order and without augmentation, in batches of `batch`
    /// images, each with all its [views](Dataset::views).
    ///
    /// # Errors
    /// As [`training`](Self::training).
    pub fn evaluation(dataset: Arc<dyn Dataset>, batch: usize) -> Result<Self, DataError> {
        Self::new(dataset, batch, false)
    }

    fn new(dataset: Arc<dyn Dataset>, batch: usize, training: bool) -> Result<Self, DataError> {
        if batch == 0 {
            return Err(DataError::Options(
                "the batch size is 0; it must be at least 1".to_owned(),
            ));
        }
        if dataset.is_empty() {
            return Err(DataError::Options("the dataset has no images".to_owned()));
        }
        Ok(Self {
            dataset,
            batch,
            training,
            keep_last: !training,
            seed: 0,
            mix: Mix::default(),
            classes: 0,
            workers: crate::cpu::threads(0),
            prefetch: 3,
            on_broken: OnBroken::default(),
            reports: Arc::default(),
            buffers: Arc::default(),
            shard: Shard {
                rank: 0,
                world_size: 1,
            },
            strata: None,
        })
    }

    /// Sets the seed of order and augmentation; 0 by default.
    pub fn seeded(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Mixes the images of each batch with each other, for a network with this many classes. The
    /// targets then are probabilities. The numbers drawn for a batch depend only on seed, epoch,
    /// rank and batch. Images that mixup blends are floats.
    ///
    /// # Errors
    /// When the loader is not for training, the network has fewer classes than the dataset (or,
    /// with independent classes, another number), or an alpha is out of range.
    pub fn mixed(self, mix: Mix, classes: usize) -> Result<Self, DataError> {
        mix.check()?;
        if !self.training && !mix.is_none() {
            return Err(DataError::Options(
                "images are mixed only in training; leave `mixed` out of evaluation".to_owned(),
            ));
        }
        super::check_fit(&*self.dataset, self.dataset.shape(), classes)?;
        Ok(Self {
            mix,
            classes,
            ..self
        })
    }

    /// The format of the served images.
    pub fn depth(&self) -> Depth {
        match self.mix.mixup > 0.0 {
            true => Depth::Floats,
            false => self.dataset.depth(),
        }
    }

    /// Sets the number of threads that load images, at least one;
    /// [`cpu::threads`](crate::cpu::threads) by default. The batches are the same for any number.
    pub fn workers(self, workers: usize) -> Self {
        Self {
            workers: workers.max(1),
            ..self
        }
    }

    /// Sets the prefetch depth: how many batches may be loaded or loading in advance, at least one;
    /// 3 by default.
    pub fn prefetch(self, batches: usize) -> Self {
        Self {
            prefetch: batches.max(1),
            ..self
        }
    }

    /// Serves this process's part of each epoch: see [`sharded`](Self::sharded).
    ///
    /// # Errors
    /// As [`sharded`](Self::sharded).
    pub fn among(self, ranks: &Ranks) -> Result<Self, DataError> {
        self.sharded(ranks.rank, ranks.world_size)
    }

    /// Serves one of `world_size` parts of each epoch, for a process that trains with others
    /// ([`parallel`](crate::parallel)). Together the parts are what a single loader would serve. In
    /// training, a batch of `world_size` times as many images is divided into consecutive parts of
    /// equal size; images left at the end that do not fill a batch for every rank are dropped. In
    /// evaluation rank `rank` serves every `world_size`-th image.
    ///
    /// # Errors
    /// When `rank` is not below `world_size`, when a part of the dataset would be empty, or when
    /// [`keep_last`](Self::keep_last) asks for parts that are not equal.
    pub fn sharded(self, rank: usize, world_size: usize) -> Result<Self, DataError> {
        let needed = if self.training {
            world_size.saturating_mul(self.batch)
        } else {
            world_size
        };
        let refused = if rank >= world_size {
            Some(format!(
                "rank {rank} is not below the world size, {world_size}"
            ))
        } else if world_size > 1 && self.training && self.keep_last {
            Some(UNEQUAL.to_owned())
        } else if world_size > 1 && self.dataset.len() < needed {
            let images = self.dataset.len();
            Some(format!(
                "{images} images are too few for {world_size} ranks, which need at least {needed}"
            ))
        } else {
            None
        };
        match refused {
            Some(reason) => Err(DataError::Options(reason)),
            None => Ok(Self {
                shard: Shard { rank, world_size },
                ..self
            }),
        }
    }

    /// In training, draws each image of an epoch with replacement, so that all classes are equally
    /// likely, however rare: first a class, then one of its images. Images of rare classes occur
    /// several times, with a new augmentation each time, and others not at all. An epoch has as
    /// many images as before.
    ///
    /// With independent classes, an image belongs to the rarest one that applies; images without
    /// any form a class of their own.
    pub fn balanced(self) -> Self {
        let strata = balance::strata(&*self.dataset);
        Self {
            strata: Some(strata.into()),
            ..self
        }
    }

    /// Serves the images left at the end of an epoch as well, in a smaller batch. One of several ranks cannot in
    /// training: each epoch would end with an error.
    pub fn keep_last(self) -> Self {
        Self {
            keep_last: true,
            ..self
        }
    }

    /// Sets what to do about images that cannot be read; [`OnBroken::Fail`] by default.
    pub fn on_broken(self, on_broken: OnBroken) -> Self {
        Self { on_broken, ..self }
    }

    /// Calls `report` for each skipped image when it is first met, from the thread that met it; by
    /// default, skipped images are reported on standard error.
    pub fn report(self, report: impl Fn(&SkippedImage) + Send + Sync + 'static) -> Self {
        Self {
            reports: Arc::new(Reports {
                skipped: Mutex::default(),
                report: Box::new(report),
            }),
            ..self
        }
    }

    /// The dataset that is served.
    pub fn dataset(&self) -> &dyn Dataset {
        &*self.dataset
    }

    /// Number of images in a full batch.
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// Number of batches in an epoch.
    pub fn batches(&self) -> usize {
        if self.keep_last {
            self.own().div_ceil(self.batch)
        } else {
            (self.own() / self.batch).max(1)
        }
    }

    /// Why no epoch can be served: [`keep_last`](Self::keep_last) after [`sharded`](Self::sharded).
    fn refusal(&self) -> Option<DataError> {
        let is_unequal = self.training && self.keep_last && self.shard.world_size > 1;
        is_unequal.then(|| DataError::Options(UNEQUAL.to_owned()))
    }

    /// Number of images in this rank's part.
    fn own(&self) -> usize {
        let Shard { rank, world_size } = self.shard;
        if self.training {
            self.dataset.len() / world_size
        } else {
            self.dataset.len().saturating_sub(rank).div_ceil(world_size)
        }
    }

    /// The batches of an epoch. In training, each epoch has another order and augmentation.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from batch `first` on: the rest of an epoch that was interrupted.
    pub fn epoch_from(&self, epoch: u64, first: usize) -> Epoch {
        Epoch::start(self, Order::new(self, epoch), first)
    }

    /// The images skipped so far, in the dataset's order.
    pub fn skipped(&self) -> Vec<SkippedImage> {
        self.reports.lock().values().cloned().collect()
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("images", &self.dataset.len())
            .field("batch", &self.batch)
            .field("training", &self.training)
            .field("seed", &self.seed)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// Called for each skipped image.
type OnSkipped = dyn Fn(&SkippedImage) + Send + Sync;

/// The images that were skipped, each listed once.
struct Reports {
    skipped: Mutex<BTreeMap<usize, SkippedImage>>,
    report: Box<OnSkipped>,
}

impl Default for Reports {
    fn default() -> Self {
        Self {
            skipped: Mutex::default(),
            report: Box::new(|image| tell!("skipped: {}", image.reason)),
        }
    }
}

impl Reports {
    fn add(&self, index: usize, error: &DataError) {
        let image = SkippedImage {
            index,
            reason: error.to_string(),
        };
        if self.lock().insert(index, image.clone()).is_none() {
            (self.report)(&image);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, SkippedImage>> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

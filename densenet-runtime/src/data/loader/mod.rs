//! Reads a dataset ahead in the background and serves it in batches.
//!
//! An [`Epoch`] hands out images to its workers; each batch comes together under a lock that a
//! worker holds only while it copies an image in, and is served when its turn comes. What an
//! image looks like depends on seed, epoch and image alone, so that the batches are the same for
//! any number of workers, and an epoch can be taken up at any batch.

mod batch;
mod epoch;
mod order;
mod worker;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{DataError, Dataset};
use batch::Buffers;
use order::Order;

pub use batch::LoadedBatch;
pub use epoch::Epoch;

/// What to do about images that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBroken {
    /// The epoch ends with the image's error.
    #[default]
    Fail,
    /// The image is reported, once. In training another takes its place, drawn at random, so that
    /// batches stay full; evaluation leaves it out.
    Skip,
}

/// An image that was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which image of the dataset.
    pub index: usize,
    /// What is wrong with it; names its file.
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
    workers: usize,
    ahead: usize,
    on_broken: OnBroken,
    reports: Arc<Reports>,
    buffers: Arc<Buffers>,
    shard: Shard,
}

/// Which part of each epoch is served.
#[derive(Clone, Copy, Debug)]
struct Shard {
    rank: usize,
    size: usize,
}

impl Loader {
    /// Serves images in random order and varied, in batches of `batch`. What is left at the end
    /// of an epoch and does not fill a batch is dropped, unless it is all there is.
    ///
    /// # Errors
    /// When `batch` is 0 or the dataset has no images.
    pub fn training(dataset: Arc<dyn Dataset>, batch: usize) -> Result<Self, DataError> {
        Self::new(dataset, batch, true)
    }

    /// Serves every image in the dataset's order, as it is, in batches of `batch` images, each
    /// with all its [views](Dataset::views).
    ///
    /// # Errors
    /// As [`training`](Self::training).
    pub fn evaluation(dataset: Arc<dyn Dataset>, batch: usize) -> Result<Self, DataError> {
        Self::new(dataset, batch, false)
    }

    fn new(dataset: Arc<dyn Dataset>, batch: usize, training: bool) -> Result<Self, DataError> {
        if batch == 0 {
            return Err(DataError::Options(
                "batches of 0 images were asked for; ask for 1 or more".to_owned(),
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
            workers: crate::cpu::threads(0),
            ahead: 3,
            on_broken: OnBroken::default(),
            reports: Arc::default(),
            buffers: Arc::default(),
            shard: Shard { rank: 0, size: 1 },
        })
    }

    /// Seeds order and variation; 0 unless told otherwise.
    pub fn seeded(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Has `workers` threads load images, at least one; as many as
    /// [`cpu::threads`](crate::cpu::threads) says unless told otherwise. The batches are the same for any number.
    pub fn workers(self, workers: usize) -> Self {
        Self {
            workers: workers.max(1),
            ..self
        }
    }

    /// Has up to `batches` batches loaded or being loaded before they are asked for, at least
    /// one; 3 unless told otherwise.
    pub fn ahead(self, batches: usize) -> Self {
        Self {
            ahead: batches.max(1),
            ..self
        }
    }

    /// Serves one of `size` parts of each epoch, as one of those who train together
    /// ([`parallel`](crate::parallel)); together they serve what one loader would. In training
    /// their batches are parts of a batch of `size` times as many images, one behind another, and
    /// all have as many: what is left and does not fill a batch for each is dropped. In evaluation
    /// every `size`-th image is served.
    ///
    /// # Errors
    /// When there is no such part, when a part of the dataset would be empty, or when
    /// [`keep_last`](Self::keep_last) asks for parts that are not equal.
    pub fn sharded(self, rank: usize, size: usize) -> Result<Self, DataError> {
        let needed = if self.training {
            size.saturating_mul(self.batch)
        } else {
            size
        };
        let refused = if rank >= size {
            Some(format!("there is no part {rank} of {size}"))
        } else if size > 1 && self.training && self.keep_last {
            Some("parts are equal only without the images left at the end".to_owned())
        } else if size > 1 && self.dataset.len() < needed {
            let images = self.dataset.len();
            Some(format!(
                "{images} images cannot be served in {size} parts; {needed} or more can"
            ))
        } else {
            None
        };
        match refused {
            Some(reason) => Err(DataError::Options(reason)),
            None => Ok(Self {
                shard: Shard { rank, size },
                ..self
            }),
        }
    }

    /// Serves the images left at the end of an epoch, too, in a smaller batch.
    pub fn keep_last(self) -> Self {
        Self {
            keep_last: true,
            ..self
        }
    }

    /// Says what to do about images that cannot be read; [`OnBroken::Fail`] unless told otherwise.
    pub fn on_broken(self, on_broken: OnBroken) -> Self {
        Self { on_broken, ..self }
    }

    /// Has each skipped image reported when it is first met, from the thread that met it.
    pub fn report(self, report: impl Fn(&Broken) + Send + Sync + 'static) -> Self {
        Self {
            reports: Arc::new(Reports {
                skipped: Mutex::default(),
                report: Some(Box::new(report)),
            }),
            ..self
        }
    }

    /// What is served.
    pub fn dataset(&self) -> &dyn Dataset {
        &*self.dataset
    }

    /// Images in a full batch.
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// Batches in an epoch.
    pub fn batches(&self) -> usize {
        if self.keep_last {
            self.own().div_ceil(self.batch)
        } else {
            (self.own() / self.batch).max(1)
        }
    }

    /// Images of its part.
    fn own(&self) -> usize {
        let Shard { rank, size } = self.shard;
        if self.training {
            self.dataset.len() / size
        } else {
            self.dataset.len().saturating_sub(rank).div_ceil(size)
        }
    }

    /// The batches of an epoch. Epochs differ in training.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from batch `first` on: what an interrupted run had left of it.
    pub fn epoch_from(&self, epoch: u64, first: usize) -> Epoch {
        Epoch::start(self, Order::new(self, epoch), first)
    }

    /// The images skipped so far, in the dataset's order.
    pub fn skipped(&self) -> Vec<Broken> {
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

/// Hears of each skipped image.
type Report = dyn Fn(&Broken) + Send + Sync;

/// The images that were skipped, each once.
#[derive(Default)]
struct Reports {
    skipped: Mutex<BTreeMap<usize, Broken>>,
    report: Option<Box<Report>>,
}

impl Reports {
    fn add(&self, index: usize, error: &DataError) {
        let broken = Broken {
            index,
            reason: error.to_string(),
        };
        let is_new = self.lock().insert(index, broken.clone()).is_none();
        if let (true, Some(report)) = (is_new, &self.report) {
            report(&broken);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Broken>> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Batches as they are served, and the reuse of their memory.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    data::{DataError, Dataset, Normalization, Target},
    executor::{Batch, Pixels, Targets},
};

/// Images and their targets. When it is dropped, its memory goes back to the loader.
pub struct LoadedBatch {
    /// Image after image, each height x width x channels; the views of an image follow one another.
    pub bytes: Vec<u8>,
    /// The target of each image, repeated for each of its views.
    pub targets: LoadedTargets,
    /// Views of each image: 1, or [`Dataset::views`](crate::data::Dataset::views) in evaluation.
    pub views: usize,
    /// The batch's index in its epoch.
    pub number: usize,
    images: usize,
    home: Arc<Buffers>,
}

/// The targets of a batch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LoadedTargets {
    /// The class of each image.
    Classes(Vec<u32>),
    /// Whether each class applies, images x classes: from 0 (no) to 1 (yes), or NaN if it is unknown.
    Independent(Vec<f32>),
}

impl LoadedTargets {
    /// The targets as an executor takes them.
    pub fn as_targets(&self) -> Targets<'_> {
        match self {
            Self::Classes(labels) => Targets::Classes(labels),
            Self::Independent(values) => Targets::Independent(values),
        }
    }

    /// The targets of some images of a dataset, each `views` times.
    fn of(dataset: &dyn Dataset, images: &[usize], views: usize) -> Result<Self, DataError> {
        let classes = dataset.classes().len();
        let mut labels = Vec::new();
        let mut values = Vec::new();
        for &image in images {
            for _ in 0..views {
                match dataset.target(image) {
                    Target::Class(label) if values.is_empty() => labels.push(label),
                    Target::Independent(row) if labels.is_empty() && row.len() == classes => {
                        values.extend_from_slice(row);
                    }
                    target => {
                        return Err(DataError::Options(format!(
                            "image {image} has the target {target:?}, but others have targets of another kind or there are {classes} classes; this is a bug in the dataset"
                        )));
                    }
                }
            }
        }
        Ok(match values.is_empty() {
            true => Self::Classes(labels),
            false => Self::Independent(values),
        })
    }
}

impl LoadedBatch {
    /// Number of images, not counting views.
    pub fn size(&self) -> usize {
        self.images
    }

    /// The label of each image, repeated for each of its views; none where classes are independent.
    pub fn labels(&self) -> &[u32] {
        match &self.targets {
            LoadedTargets::Classes(labels) => labels,
            LoadedTargets::Independent(_) => &[],
        }
    }

    /// The batch for an executor, which normalises it.
    pub fn as_batch<'a>(&'a self, normalization: &'a Normalization) -> Batch<'a> {
        Batch {
            pixels: Pixels::Nhwc {
                bytes: &self.bytes,
                mean: &normalization.mean,
                std: &normalization.std,
            },
            targets: self.targets.as_targets(),
        }
    }

    /// The batch of some images of a dataset, of which these are the bytes.
    pub(super) fn new(
        bytes: Vec<u8>,
        (dataset, images): (&dyn Dataset, &[usize]),
        views: usize,
        number: usize,
        home: Arc<Buffers>,
    ) -> Result<Self, DataError> {
        Ok(Self {
            bytes,
            targets: LoadedTargets::of(dataset, images, views)?,
            views,
            number,
            images: images.len(),
            home,
        })
    }
}

impl fmt::Debug for LoadedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedBatch")
            .field("number", &self.number)
            .field("views", &self.views)
            .field("targets", &self.targets)
            .finish_non_exhaustive()
    }
}

impl Drop for LoadedBatch {
    fn drop(&mut self) {
        self.home.put(std::mem::take(&mut self.bytes));
    }
}

/// Memory of batches that were dropped, to be used again.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// No more than this are kept. Otherwise a program that collects batches would never get their
    /// memory back.
    const MOST: usize = 8;

    /// A buffer of `length` bytes, of any value.
    pub(super) fn take(&self, length: usize) -> Vec<u8> {
        let buffer = self.lock().pop();
        let mut buffer = buffer.unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    pub(super) fn put(&self, buffer: Vec<u8>) {
        let mut buffers = self.lock();
        if buffers.len() < Self::MOST && buffer.capacity() > 0 {
            buffers.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

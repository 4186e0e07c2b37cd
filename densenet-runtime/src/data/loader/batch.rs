//! Batches as they are served, and the reuse of their memory.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    data::Normalization,
    executor::{Batch, Pixels},
};

/// Images and their labels. When it is dropped, its memory goes back to the loader.
pub struct LoadedBatch {
    /// Image after image, each height x width x channels; the views of an image follow one another.
    pub bytes: Vec<u8>,
    /// The label of each image, repeated for each of its views.
    pub labels: Vec<u32>,
    /// Views of each image: 1, or [`Dataset::views`](crate::data::Dataset::views) in evaluation.
    pub views: usize,
    /// The batch's index in its epoch.
    pub number: usize,
    home: Arc<Buffers>,
}

impl LoadedBatch {
    /// Number of images, not counting views.
    pub fn size(&self) -> usize {
        self.labels.len() / self.views
    }

    /// The batch for an executor, which normalises it.
    pub fn as_batch<'a>(&'a self, normalization: &'a Normalization) -> Batch<'a> {
        Batch::of_classes(
            Pixels::Nhwc {
                bytes: &self.bytes,
                mean: &normalization.mean,
                std: &normalization.std,
            },
            &self.labels,
        )
    }

    pub(super) fn new(
        bytes: Vec<u8>,
        labels: Vec<u32>,
        views: usize,
        number: usize,
        home: Arc<Buffers>,
    ) -> Self {
        Self {
            bytes,
            labels,
            views,
            number,
            home,
        }
    }
}

impl fmt::Debug for LoadedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedBatch")
            .field("number", &self.number)
            .field("views", &self.views)
            .field("labels", &self.labels)
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

//! Batches as they are served, and the memory that goes round with them.

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
    /// Image after image, height x width x channels; the views of an image one after another.
    pub bytes: Vec<u8>,
    /// The label of each image, repeated for each of its views.
    pub labels: Vec<u32>,
    /// Views of each image: 1, or what [`Dataset::views`](crate::data::Dataset::views) says in
    /// evaluation.
    pub views: usize,
    /// Which batch of the epoch it is.
    pub number: usize,
    home: Arc<Buffers>,
}

impl LoadedBatch {
    /// Images, not counting views.
    pub fn size(&self) -> usize {
        self.labels.len() / self.views
    }

    /// The batch for an executor, which then normalises it.
    pub fn as_batch<'a>(&'a self, normalization: &'a Normalization) -> Batch<'a> {
        Batch {
            pixels: Pixels::Nhwc {
                bytes: &self.bytes,
                mean: &normalization.mean,
                deviation: &normalization.deviation,
            },
            labels: &self.labels,
        }
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

/// Memory of batches that are done with.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// More than this are not kept; a program that collects batches would otherwise have all of
    /// their memory stay behind.
    const MOST: usize = 8;

    /// `length` bytes, of any value.
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

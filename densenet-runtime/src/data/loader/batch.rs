//! Batches as they are served, and the reuse of their memory.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    data::{DataError, Dataset, Depth, Normalization, Rng, Target},
    executor::{Batch, Targets},
};

/// The pixels of a batch: image by image, each height x width x channels; the views of an image are
/// consecutive.
#[derive(Clone, Debug, PartialEq)]
pub enum LoadedPixels {
    /// Bytes.
    Bytes(Vec<u8>),
    /// Floats in [0, 1].
    Floats(Vec<f32>),
}

impl LoadedPixels {
    /// The number of bytes or floats.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Floats(values) => values.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes; `None` if the images are floats.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Floats(_) => None,
        }
    }

    /// The floats; `None` if the images are bytes.
    pub fn floats(&self) -> Option<&[f32]> {
        match self {
            Self::Bytes(_) => None,
            Self::Floats(values) => Some(values),
        }
    }

    /// None, of a kind.
    pub(super) fn none(depth: Depth) -> Self {
        match depth {
            Depth::Bytes => Self::Bytes(Vec::new()),
            Depth::Floats => Self::Floats(Vec::new()),
        }
    }

    /// Room for this many bytes or floats, of any value.
    pub(super) fn resize(&mut self, length: usize) {
        match self {
            Self::Bytes(bytes) => bytes.resize(length, 0),
            Self::Floats(values) => values.resize(length, 0.0),
        }
    }

    /// Loads an image at a place.
    pub(super) fn load(
        &mut self,
        dataset: &dyn Dataset,
        index: usize,
        rng: Option<&mut Rng>,
        at: Range<usize>,
    ) -> Result<(), DataError> {
        match self {
            Self::Bytes(bytes) => dataset.load(index, rng, &mut bytes[at]),
            Self::Floats(values) => dataset.load_floats(index, rng, &mut values[at]),
        }
    }

    /// Copies others of the same kind in.
    pub(super) fn put(&mut self, at: usize, others: &Self) {
        match (self, others) {
            (Self::Bytes(into), Self::Bytes(from)) => {
                into[at..][..from.len()].copy_from_slice(from);
            }
            (Self::Floats(into), Self::Floats(from)) => {
                into[at..][..from.len()].copy_from_slice(from);
            }
            _ => unreachable!("a loader has images of one kind"),
        }
    }

    /// Moves a part to the front, or nearer to it.
    pub(super) fn copy_within(&mut self, from: Range<usize>, to: usize) {
        match self {
            Self::Bytes(bytes) => bytes.copy_within(from, to),
            Self::Floats(values) => values.copy_within(from, to),
        }
    }

    pub(super) fn truncate(&mut self, length: usize) {
        match self {
            Self::Bytes(bytes) => bytes.truncate(length),
            Self::Floats(values) => values.truncate(length),
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.capacity(),
            Self::Floats(values) => values.capacity(),
        }
    }
}

/// Images and their targets. When it is dropped, its memory goes back to the loader.
pub struct LoadedBatch {
    /// The images.
    pub pixels: LoadedPixels,
    /// The target of each image, repeated for each of its views.
    pub targets: LoadedTargets,
    /// Views of each image: 1, or [`Dataset::views`](crate::data::Dataset::views) in evaluation.
    pub views: usize,
    /// The batch's index in its epoch.
    pub number: usize,
    images: Vec<usize>,
    home: Arc<Recycled>,
}

/// The targets of a batch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LoadedTargets {
    /// The class of each image.
    Classes(Vec<u32>),
    /// The probability of each class, images x classes, for mixed images ([`Mix`](super::Mix)).
    Probabilities(Vec<f32>),
    /// Whether each class applies, images x classes: from 0 (no) to 1 (yes), or NaN if it is unknown.
    Independent(Vec<f32>),
}

impl LoadedTargets {
    /// The targets as an executor takes them.
    pub fn as_targets(&self) -> Targets<'_> {
        match self {
            Self::Classes(labels) => Targets::Classes(labels),
            Self::Probabilities(values) => Targets::Probabilities(values),
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
        self.images.len()
    }

    /// The index of each image in the dataset, not counting views. Images that cannot be read are
    /// [left out](crate::data::OnBroken::Skip) of an evaluation.
    pub fn indices(&self) -> &[usize] {
        &self.images
    }

    /// The label of each image, repeated for each of its views; empty if classes are independent or
    /// images are mixed.
    pub fn labels(&self) -> &[u32] {
        match &self.targets {
            LoadedTargets::Classes(labels) => labels,
            LoadedTargets::Probabilities(_) | LoadedTargets::Independent(_) => &[],
        }
    }

    /// The batch for an executor, which normalises it.
    pub fn as_batch<'a>(&'a self, normalization: &'a Normalization) -> Batch<'a> {
        Batch {
            pixels: match &self.pixels {
                LoadedPixels::Bytes(bytes) => normalization.pixels(bytes),
                LoadedPixels::Floats(values) => normalization.floats(values),
            },
            targets: self.targets.as_targets(),
        }
    }

    /// The batch of some images of a dataset, with their pixels.
    pub(super) fn new(
        pixels: LoadedPixels,
        (dataset, images): (&dyn Dataset, &[usize]),
        views: usize,
        number: usize,
        home: Arc<Recycled>,
    ) -> Result<Self, DataError> {
        Ok(Self {
            pixels,
            targets: LoadedTargets::of(dataset, images, views)?,
            views,
            number,
            images: images.to_vec(),
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
        let nothing = LoadedPixels::none(Depth::Bytes);
        self.home.put(std::mem::replace(&mut self.pixels, nothing));
    }
}

/// Memory of batches that were dropped, to be used again.
#[derive(Debug, Default)]
pub(super) struct Recycled(Mutex<Vec<LoadedPixels>>);

impl Recycled {
    /// No more than this many are kept, or a program that collects batches would never get their memory back.
    const MOST: usize = 8;

    /// A buffer of `length` bytes or floats, of any value.
    pub(super) fn take(&self, depth: Depth, length: usize) -> LoadedPixels {
        let mut buffers = self.lock();
        let is_of_kind =
            |pixels: &LoadedPixels| pixels.bytes().is_some() == (depth == Depth::Bytes);
        let at = buffers.iter().rposition(is_of_kind);
        let buffer = at.map(|at| buffers.swap_remove(at));
        drop(buffers);
        let mut buffer = buffer.unwrap_or_else(|| LoadedPixels::none(depth));
        buffer.resize(length);
        buffer
    }

    pub(super) fn put(&self, buffer: LoadedPixels) {
        let mut buffers = self.lock();
        if buffers.len() < Self::MOST && buffer.capacity() > 0 {
            buffers.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LoadedPixels>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

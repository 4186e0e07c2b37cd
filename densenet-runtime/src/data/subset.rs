//! Some of the images of a dataset.

use std::{fmt, sync::Arc};

use super::{DataError, Dataset, Depth, Normalization, Rng, Target};

/// Some images of a dataset, in a given order.
#[derive(Clone)]
pub struct Subset {
    dataset: Arc<dyn Dataset>,
    images: Vec<usize>,
}

impl Subset {
    /// The images with these indices.
    ///
    /// # Errors
    /// When an index is not below the dataset's length.
    pub fn new(dataset: Arc<dyn Dataset>, images: Vec<usize>) -> Result<Self, DataError> {
        let all = dataset.len();
        match images.iter().find(|&&image| image >= all) {
            Some(image) => Err(DataError::Options(format!(
                "a subset cannot have image {image} of a dataset of {all} images"
            ))),
            None => Ok(Self { dataset, images }),
        }
    }

    /// The indices in the whole dataset.
    pub fn images(&self) -> &[usize] {
        &self.images
    }
}

impl fmt::Debug for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subset")
            .field("images", &self.images.len())
            .field("of", &self.dataset.len())
            .finish()
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }

    fn shape(&self) -> [usize; 3] {
        self.dataset.shape()
    }

    fn normalization(&self) -> &Normalization {
        self.dataset.normalization()
    }

    fn views(&self) -> usize {
        self.dataset.views()
    }

    fn target(&self, index: usize) -> Target<'_> {
        self.dataset.target(self.images[index])
    }

    fn name(&self, index: usize) -> String {
        self.dataset.name(self.images[index])
    }

    fn load(&self, index: usize, rng: Option<&mut Rng>, into: &mut [u8]) -> Result<(), DataError> {
        self.dataset.load(self.images[index], rng, into)
    }
    fn depth(&self) -> Depth {
        self.dataset.depth()
    }

    fn load_floats(
        &self,
        index: usize,
        rng: Option<&mut Rng>,
        into: &mut [f32],
    ) -> Result<(), DataError> {
        self.dataset.load_floats(self.images[index], rng, into)
    }
}

//! What a loader can serve.

use super::{DataError, Depth, Normalization, Rng};
use crate::classes;

/// The threshold from which on an independent class counts as applying when images are split or drawn by class.
pub(super) const APPLIES: f32 = 0.5;

/// The target of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target<'a> {
    /// The image's class.
    Class(u32),
    /// Whether each class applies, independently of the others: from 0 (no) to 1 (yes), or NaN if it
    /// is unknown.
    Independent(&'a [f32]),
}

impl Target<'_> {
    /// The image's class; `None` if classes are independent.
    pub const fn class(&self) -> Option<u32> {
        match self {
            Self::Class(class) => Some(*class),
            Self::Independent(_) => None,
        }
    }
}

/// Images of one shape, each with its target.
pub trait Dataset: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the classes. A class is an index into them, and independent targets have a value
    /// for each.
    fn classes(&self) -> &[String];

    /// The target of an image. All images have targets of one kind.
    ///
    /// # Panics
    /// May panic if `index` is not below [`len`](Self::len).
    fn target(&self, index: usize) -> Target<'_>;

    /// An image's name in files that list it: the path of a picture relative to the folder of its
    /// set. By default its index.
    fn name(&self, index: usize) -> String {
        index.to_string()
    }

    /// Channels, height and width of the images as they are served.
    fn shape(&self) -> [usize; 3];

    /// What the images are made of: bytes, written by [`load`](Self::load), or floats, written by
    /// [`load_floats`](Self::load_floats). It is the same for all images.
    fn depth(&self) -> Depth {
        Depth::Bytes
    }

    /// How the served bytes or floats become the network's input.
    fn normalization(&self) -> &Normalization;

    /// The number of views of each image in evaluation: 10 for ten-crop testing. The scores of an
    /// image's views must be averaged.
    fn views(&self) -> usize {
        1
    }

    /// Writes an image's bytes, height x width x channels.
    ///
    /// With an `rng`, for training, the image is augmented at random; the same numbers give the
    /// same image. Without one, for evaluation, all [views](Self::views) are written one after
    /// another. `into` has exactly the length of the output.
    ///
    /// # Errors
    /// When the image cannot be read. It is then [about one image](DataError::is_about_one_image).
    ///
    /// # Panics
    /// May panic if `index` is not below [`len`](Self::len) or `into` has another length.
    fn load(&self, index: usize, rng: Option<&mut Rng>, into: &mut [u8]) -> Result<(), DataError>;

    /// Writes an image as [`load`](Self::load) does, in floats from 0 to 1. A dataset of bytes does
    /// not need to implement this.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    ///
    /// # Panics
    /// As [`load`](Self::load).
    fn load_floats(
        &self,
        index: usize,
        rng: Option<&mut Rng>,
        into: &mut [f32],
    ) -> Result<(), DataError> {
        let mut bytes = vec![0; into.len()];
        self.load(index, rng, &mut bytes)?;
        for (value, byte) in into.iter_mut().zip(bytes) {
            *value = f32::from(byte) / 255.0;
        }
        Ok(())
    }
}

/// Checks that a network with this input (channels, height, width) and number of classes can be
/// trained on a dataset.
///
/// # Errors
/// When the images have another shape, the dataset has more classes than the network, or it has
/// fewer independent ones.
pub fn check_fit(
    dataset: &dyn Dataset,
    input: [usize; 3],
    classes: usize,
) -> Result<(), DataError> {
    if dataset.shape() != input {
        return Err(DataError::Shape {
            expected: input,
            found: dataset.shape(),
        });
    }
    let found = dataset.classes().len();
    let is_independent = !dataset.is_empty() && dataset.target(0).class().is_none();
    if found > classes || (found < classes && is_independent) {
        return Err(DataError::TooManyClasses {
            expected: classes,
            found,
        });
    }
    Ok(())
}

/// Checks that labels mean the same classes in two datasets.
///
/// # Errors
/// When they do not; the error states the difference.
pub fn check_same_classes(
    training: &dyn Dataset,
    validation: &dyn Dataset,
) -> Result<(), DataError> {
    let difference = classes::difference(
        ("training", training.classes()),
        ("validation", validation.classes()),
    );
    match difference {
        Some(difference) => Err(DataError::ClassesDiffer { difference }),
        None => Ok(()),
    }
}

//! What a loader can serve.

use super::{DataError, Normalization, Rng};
use crate::classes;

/// Labelled images of one shape.
pub trait Dataset: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the classes; a label is an index into them.
    fn classes(&self) -> &[String];

    /// Channels, height and width of the images as they are served.
    fn shape(&self) -> [usize; 3];

    /// How the served bytes become the network's input.
    fn normalization(&self) -> &Normalization;

    /// The number of views served for each image in evaluation: 10 for ten-crop testing. The scores
    /// of an image's views are to be averaged.
    fn views(&self) -> usize {
        1
    }

    /// Writes an image's bytes, height x width x channels, and returns its label.
    ///
    /// With an `rng` the image is varied at random, for training, and is the same for the same
    /// numbers. Without one, for evaluation, all [views](Self::views) are written one after
    /// another. `into` is exactly as long as what is written.
    ///
    /// # Errors
    /// When the image cannot be read. It is then [about one image](DataError::is_about_one_image).
    ///
    /// # Panics
    /// May panic if `index` is not below [`len`](Self::len) or `into` has another length.
    fn load(&self, index: usize, rng: Option<&mut Rng>, into: &mut [u8]) -> Result<u32, DataError>;
}

/// Checks that a network with this input (channels, height, width) and number of classes can be
/// trained on a dataset.
///
/// # Errors
/// When the images have another shape, or the dataset has more classes than the network.
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
    if dataset.classes().len() > classes {
        return Err(DataError::TooManyClasses {
            expected: classes,
            found: dataset.classes().len(),
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

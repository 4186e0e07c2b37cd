//! Small images, all held in memory.

use std::fmt;

use super::{
    DataError, Dataset, Normalization, Rng, ShiftAndFlip, Target, check_same_classes, shift,
};

/// Labelled images held as bytes: MNIST, Fashion-MNIST, CIFAR, or a program's own images.
///
/// They are normalised with their own mean and standard deviation, channel by channel. A test set
/// needs those of the training set: `test.normalized(train.normalization().clone())`. The functions
/// that read both sets do this.
#[derive(Clone)]
pub struct InMemory {
    shape: [usize; 3],
    images: Vec<u8>,
    labels: Vec<u32>,
    classes: Vec<String>,
    augmentation: Option<ShiftAndFlip>,
    normalization: Normalization,
}

impl InMemory {
    /// Makes a dataset of images of a shape (channels, height, width), given as images x height x
    /// width x channels.
    ///
    /// # Errors
    /// When the numbers of images and labels differ, a label is not one of the classes, or the
    /// shape has no pixels.
    pub fn new(
        shape: [usize; 3],
        images: Vec<u8>,
        labels: Vec<u32>,
        classes: Vec<String>,
    ) -> Result<Self, DataError> {
        let size: usize = shape.iter().product();
        if size == 0 {
            return Err(DataError::Options(format!(
                "images of {shape:?} (channels, height, width) have no pixels"
            )));
        }
        if images.len() != size * labels.len() {
            return Err(DataError::Counts {
                images: images.len() / size,
                images_at: format!("{} bytes", images.len()),
                labels: labels.len(),
                labels_at: format!("{} bytes an image", size),
            });
        }
        check_labels(&labels, classes.len(), "the labels given")?;
        Ok(Self {
            normalization: Normalization::of(&images, shape[0]),
            shape,
            images,
            labels,
            classes,
            augmentation: None,
        })
    }

    /// Varies images in training.
    ///
    /// # Errors
    /// When the padding's colour does not have one byte for each channel, or the share of images
    /// from which a rectangle is erased is not in [0, 1].
    pub fn augmented(self, augmentation: ShiftAndFlip) -> Result<Self, DataError> {
        self.check_colour(&augmentation.fill)?;
        if !(0.0..=1.0).contains(&augmentation.erase) {
            return Err(DataError::Options(format!(
                "the share of images with an erased part must be from 0 to 1, found {}",
                augmentation.erase
            )));
        }
        Ok(Self {
            augmentation: Some(augmentation),
            ..self
        })
    }

    /// Sets the normalisation.
    pub fn normalized(self, normalization: Normalization) -> Self {
        Self {
            normalization,
            ..self
        }
    }

    /// Pads every image on all sides with one colour, from 28x28 to 32x32, say. The normalisation
    /// stays that of the images without padding.
    ///
    /// # Errors
    /// When the new size is smaller than the images, or the colour does not have one byte for each
    /// channel.
    pub fn padded(self, [height, width]: [usize; 2], fill: &[u8]) -> Result<Self, DataError> {
        self.check_colour(fill)?;
        let [channels, h, w] = self.shape;
        if height < h || width < w {
            return Err(DataError::Options(format!(
                "images of {h}x{w} do not fit into {height}x{width}"
            )));
        }
        let offset = [((height - h) / 2) as isize, ((width - w) / 2) as isize];
        let size = height * width * channels;
        let mut images = vec![0; size * self.labels.len()];
        for (image, ground) in self
            .images
            .chunks_exact(h * w * channels)
            .zip(images.chunks_exact_mut(size))
        {
            shift::paste(image, [h, w], offset, ground, [height, width], fill);
        }
        Ok(Self {
            shape: [channels, height, width],
            images,
            ..self
        })
    }

    /// Splits off the first `count` images, to hold images out of training, or to try something on
    /// a few. Both parts keep the normalisation of the whole.
    pub fn split(mut self, count: usize) -> (Self, Self) {
        let count = count.min(self.len());
        let rest = Self {
            images: self.images.split_off(count * self.size()),
            labels: self.labels.split_off(count),
            classes: self.classes.clone(),
            augmentation: self.augmentation.clone(),
            normalization: self.normalization.clone(),
            shape: self.shape,
        };
        (self, rest)
    }

    /// These images followed by others, which take over their normalisation and augmentation.
    ///
    /// # Errors
    /// When the others have another shape or other classes.
    pub fn joined(mut self, others: Self) -> Result<Self, DataError> {
        if others.shape != self.shape {
            return Err(DataError::Options(format!(
                "images of {:?} (channels, height, width) cannot be joined to images of {:?}",
                others.shape, self.shape
            )));
        }
        check_same_classes(&self, &others)?;
        self.images.extend(others.images);
        self.labels.extend(others.labels);
        Ok(self)
    }

    /// The mean colour, to the nearest byte: the network sees such a pixel as 0. The paper pads
    /// CIFAR's images with zeros after normalising them, which is padding with this colour.
    pub fn mean_colour(&self) -> Vec<u8> {
        let byte = |mean: &f32| (mean * 255.0).round() as u8;
        self.normalization.mean.iter().map(byte).collect()
    }

    fn size(&self) -> usize {
        self.shape.iter().product()
    }

    fn check_colour(&self, fill: &[u8]) -> Result<(), DataError> {
        if fill.len() == self.shape[0] {
            return Ok(());
        }
        Err(DataError::Options(format!(
            "the colour of the padding has {} bytes, but the images have {} channels",
            fill.len(),
            self.shape[0]
        )))
    }
}

/// Checks that all labels are among the classes.
pub(super) fn check_labels(labels: &[u32], classes: usize, at: &str) -> Result<(), DataError> {
    match labels.iter().position(|&label| label as usize >= classes) {
        None => Ok(()),
        Some(index) => Err(DataError::Label {
            at: at.to_owned(),
            index,
            label: labels[index],
            classes,
        }),
    }
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    fn target(&self, index: usize) -> Target<'_> {
        Target::Class(self.labels[index])
    }

    fn load(&self, index: usize, rng: Option<&mut Rng>, into: &mut [u8]) -> Result<(), DataError> {
        let size = self.size();
        let image = &self.images[index * size..][..size];
        let [_, height, width] = self.shape;
        match (&self.augmentation, rng) {
            (Some(augmentation), Some(rng)) => {
                augmentation.apply(image, [height, width], rng, into);
            }
            _ => into.copy_from_slice(image),
        }
        Ok(())
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory")
            .field("images", &self.labels.len())
            .field("shape", &self.shape)
            .field("classes", &self.classes)
            .field("augmentation", &self.augmentation)
            .field("normalization", &self.normalization)
            .finish_non_exhaustive()
    }
}

//! From a picture's file to the image that the network sees.

use std::{panic::AssertUnwindSafe, path::Path};

use super::{
    Crops, DataError, MAX_PIXELS, Normalization, PictureError, Rng, crops, decode,
    geometry::RandomResizedCrop, resize,
};

/// How pictures are read from files and shown as images of one shape: what datasets of files share,
/// wherever their labels come from.
///
/// Training shows a random part of a picture ([`RandomResizedCrop`]), mirrored half of the time.
/// Evaluation shows the [centre or ten crops](Crops). Images are RGB, normalised with
/// ImageNet's mean and standard deviation unless [others](Self::normalized) are set.
#[derive(Clone, Debug)]
pub struct Pictures {
    height: u32,
    width: u32,
    crop: RandomResizedCrop,
    evaluation: Crops,
    normalization: Normalization,
    max_pixels: u64,
}

impl Pictures {
    /// Pictures that are shown as `height` x `width`.
    ///
    /// # Errors
    /// When a side is 0 or more than 65,535.
    pub fn sized([height, width]: [usize; 2]) -> Result<Self, DataError> {
        let (width, height) = crops::sides([height, width])?;
        Ok(Self {
            height,
            width,
            crop: RandomResizedCrop::default(),
            evaluation: Crops::default(),
            normalization: Normalization::imagenet(),
            max_pixels: MAX_PIXELS,
        })
    }

    /// Sets the random crop of training.
    pub fn cropped(self, crop: RandomResizedCrop) -> Self {
        Self { crop, ..self }
    }

    /// Sets the crop of evaluation; the centre by default.
    pub fn evaluated(self, evaluation: Crops) -> Self {
        Self { evaluation, ..self }
    }

    /// Sets the normalisation.
    pub fn normalized(self, normalization: Normalization) -> Self {
        Self {
            normalization,
            ..self
        }
    }

    /// Sets the largest number of pixels (width times height) of a picture; [`MAX_PIXELS`] by
    /// default. Larger ones count as [broken](super::OnBroken), and no memory is allocated for
    /// them.
    pub fn max_pixels(self, pixels: u64) -> Self {
        Self {
            max_pixels: pixels,
            ..self
        }
    }

    /// Channels, height and width of the images.
    pub fn shape(&self) -> [usize; 3] {
        [3, self.height as usize, self.width as usize]
    }

    /// How the images' bytes become the network's input.
    pub fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    /// The number of views of a picture in evaluation.
    pub fn views(&self) -> usize {
        self.evaluation.views()
    }

    /// Reads a picture and writes what the network sees of it, as
    /// [`Dataset::load`](super::Dataset::load) does: varied by `rng` for training, all
    /// [views](Self::views) without one.
    ///
    /// # Errors
    /// When the file cannot be read or is not a picture; the error names it.
    pub fn load(
        &self,
        path: &Path,
        rng: Option<&mut Rng>,
        into: &mut [u8],
    ) -> Result<(), DataError> {
        let picture = decode::read_within(path, self.max_pixels)?;
        // After a panic only this image's bytes and random numbers are half done, and nobody uses
        // them.
        let shown = AssertUnwindSafe(|| {
            match rng {
                Some(rng) => self.show_random_part(&picture, rng, into),
                None => self
                    .evaluation
                    .write(&picture, self.width, self.height, into),
            }
            .map_err(PictureError::Broken)
        });
        decode::caught(shown).map_err(|reason| DataError::Picture {
            path: path.to_owned(),
            reason,
        })
    }

    fn show_random_part(
        &self,
        picture: &decode::Rgb,
        rng: &mut Rng,
        into: &mut [u8],
    ) -> Result<(), String> {
        let crop = self.crop.draw(picture.width, picture.height, rng);
        let mirrored = rng.coin();
        resize::crop_then_resize(picture, crop, self.width, self.height, into)?;
        if mirrored {
            resize::mirror(into, self.width as usize, 3);
        }
        Ok(())
    }
}

/// Whether a file's name is that of a picture that is read here, in any case.
pub(super) fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["jpg", "jpeg", "png"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

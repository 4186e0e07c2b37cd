//! From a picture's file to the image that the network sees.

use std::{
    fs,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
};

use super::{
    Augmentation, DataError, Depth, EvaluationCrop, MAX_PIXELS, Normalization, PictureError, Rng,
    SampleRange, crops, decode,
    geometry::RandomResizedCrop,
    raster::{Sample, View},
};

/// The largest number of files that are examined to find out whether pictures need more than 8 bits.
const LOOKED_AT: usize = 8;

/// How pictures are read from files and become images of one shape. Datasets of files share this,
/// whatever the source of their labels.
///
/// Training takes a random crop of a picture, mirrored half of the time, or follows an
/// [`Augmentation`]. Evaluation takes the [centre or ten crops](EvaluationCrop). Images are RGB or
/// grey, normalised with ImageNet's mean and standard deviation unless [others](Self::normalized)
/// are set.
///
/// Images are bytes, or floats if samples of more than 8 bits are to be kept ([`Depth`]). All images
/// of a dataset are one or the other, as [set](Self::deep) or as the dataset's first file
/// [needs](Self::as_needed_by).
#[derive(Clone, Debug)]
pub struct Pictures {
    channels: usize,
    height: u32,
    width: u32,
    /// `None` until a dataset's first file decides.
    depth: Option<Depth>,
    range: Option<SampleRange>,
    augmentation: Augmentation,
    evaluation: EvaluationCrop,
    normalization: Normalization,
    max_pixels: u64,
}

impl Pictures {
    /// Pictures in RGB of `height` x `width`.
    ///
    /// # Errors
    /// When a side is 0 or more than 65,535.
    pub fn sized([height, width]: [usize; 2]) -> Result<Self, DataError> {
        Self::shaped([3, height, width])
    }

    /// Pictures with the shape of a network's input: channels, height and width. One channel is
    /// grey (Rec. 601, as in Pillow's `convert("L")`), three are RGB.
    ///
    /// # Errors
    /// When a side is 0 or more than 65,535, or there is another number of channels.
    pub fn shaped([channels, height, width]: [usize; 3]) -> Result<Self, DataError> {
        let (width, height) = crops::sides([height, width])?;
        if !matches!(channels, 1 | 3) {
            return Err(DataError::Options(format!(
                "pictures have 1 channel (grey) or 3 (RGB), but images of {channels} were requested"
            )));
        }
        Ok(Self {
            channels,
            height,
            width,
            depth: None,
            range: None,
            augmentation: Augmentation::default(),
            evaluation: EvaluationCrop::default(),
            normalization: Normalization::usual(channels),
            max_pixels: MAX_PIXELS,
        })
    }

    /// Sets the format of images. If it is not set, the first file of a dataset decides; without a
    /// file, images are bytes.
    pub fn deep(self, depth: Depth) -> Self {
        Self {
            depth: Some(depth),
            ..self
        }
    }

    /// Sets the samples that become 0 and 1, whatever the files' types: 0 to 4095 for 12 bits in
    /// files of 16, for example. Images are then floats.
    ///
    /// # Errors
    /// When the range's ends are not finite numbers, the lower one first.
    pub fn ranged(self, range: SampleRange) -> Result<Self, DataError> {
        if !range.is_valid() {
            return Err(DataError::Options(format!(
                "samples cannot range from {} to {}; the lower end comes first",
                range.low, range.high
            )));
        }
        Ok(Self {
            range: Some(range),
            depth: Some(Depth::Floats),
            ..self
        })
    }

    /// Decides the format of images, unless it is [set](Self::deep): floats if the first readable
    /// one of the first eight files has more than 8 bits per sample.
    pub fn as_needed_by(self, files: impl IntoIterator<Item = PathBuf>) -> Self {
        if self.depth.is_some() {
            return self;
        }
        let mut files = files.into_iter().take(LOOKED_AT);
        let most = self.max_pixels;
        let depth = files.find_map(|path| decode::depth(&fs::read(path).ok()?, most));
        self.deep(depth.unwrap_or_default())
    }

    /// Sets the augmentation of training.
    ///
    /// # Errors
    /// When a setting is [out of its range](Augmentation::check).
    pub fn augmented(self, augmentation: Augmentation) -> Result<Self, DataError> {
        augmentation.check()?;
        Ok(Self {
            augmentation,
            ..self
        })
    }

    /// Sets only the random crop of training.
    pub fn cropped(self, crop: RandomResizedCrop) -> Self {
        let augmentation = Augmentation {
            crop,
            ..self.augmentation
        };
        Self {
            augmentation,
            ..self
        }
    }

    /// Sets the crop of evaluation, or only its [`Crops`](super::Crops); the centre by default.
    pub fn evaluated(self, evaluation: impl Into<EvaluationCrop>) -> Self {
        Self {
            evaluation: evaluation.into(),
            ..self
        }
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
        [self.channels, self.height as usize, self.width as usize]
    }

    /// What the images are made of.
    pub fn depth(&self) -> Depth {
        self.depth.unwrap_or_default()
    }

    /// How the images become the network's input.
    pub fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    /// What evaluation shows.
    pub fn evaluation(&self) -> EvaluationCrop {
        self.evaluation
    }

    /// The number of views of a picture in evaluation.
    pub fn views(&self) -> usize {
        self.evaluation.crops.views()
    }

    /// Reads a picture and writes the network's image of it in bytes, as
    /// [`Dataset::load`](super::Dataset::load) does: augmented by `rng` for training, all
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
        self.load_as(path, rng, into)
    }

    /// Reads a picture as [`load`](Self::load) does, and writes floats in [0, 1], with all bits of the file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_floats(
        &self,
        path: &Path,
        rng: Option<&mut Rng>,
        into: &mut [f32],
    ) -> Result<(), DataError> {
        self.load_as(path, rng, into)
    }

    fn load_as<T: Sample>(
        &self,
        path: &Path,
        rng: Option<&mut Rng>,
        into: &mut [T],
    ) -> Result<(), DataError> {
        self.evaluation.check()?;
        let bytes = fs::read(path).map_err(DataError::io("read", path))?;
        let of_file = |reason| DataError::Picture {
            path: path.to_owned(),
            reason,
        };
        let picture = decode::picture(&bytes, self.max_pixels, T::DEPTH).map_err(of_file)?;
        drop(bytes);
        // After a panic only this image's samples and random numbers are half done, and nobody uses
        // them.
        let shown = AssertUnwindSafe(|| {
            let samples = T::samples(&picture, self.channels, self.range)?;
            let (width, height) = picture.size();
            let view = View {
                width,
                height,
                channels: self.channels,
                samples: &samples[..],
            };
            match rng {
                Some(rng) => {
                    let (size, mean) = ((self.width, self.height), &self.normalization.mean);
                    self.augmentation.apply(view, size, mean, rng, into)
                }
                None => self.evaluation.write(view, self.width, self.height, into),
            }
            .map_err(PictureError::Broken)
        });
        decode::caught(shown).map_err(of_file)
    }
}

/// The extensions of the files that are read as pictures, in any case: torchvision's
/// `IMG_EXTENSIONS`, three more, and with the feature `dicom` DICOM's.
pub const EXTENSIONS: &[&str] = &[
    "jpg",
    "jpeg",
    "png",
    "ppm",
    "bmp",
    "pgm",
    "tif",
    "tiff",
    "webp",
    "gif",
    "pbm",
    "pnm",
    #[cfg(feature = "dicom")]
    "dcm",
];

/// Whether a file's name is that of a picture that is read here, in any case.
pub(super) fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        EXTENSIONS
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

//! The crops of a picture in validation and prediction, which are not random.

use std::fmt;
use std::str::FromStr;

use super::{
    DataError, Interpolation,
    decode::Rgb,
    geometry::{self, Rect},
    raster::{Sample, View},
    resize,
};

/// The crops of a picture in evaluation.
///
/// [`ImageFolder`](super::ImageFolder) crops its pictures this way; [`show`](Self::show) does the
/// same for a single picture:
///
/// ```no_run
/// use densenet_runtime::data::{self, Crops, Normalization};
///
/// # fn main() -> Result<(), densenet_runtime::data::DataError> {
/// let picture = data::read("cat.jpg")?;
/// let bytes = Crops::Centre.show(&picture, [224, 224])?;
/// let normalization = Normalization::imagenet();
/// let pixels = normalization.pixels(&bytes);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Crops {
    /// The centre.
    #[default]
    Centre,
    /// The four corners, the centre, and their mirror images (paper, table 3).
    Ten,
}

impl Crops {
    /// The number of views of a picture.
    pub const fn views(self) -> usize {
        match self {
            Self::Centre => 1,
            Self::Ten => 10,
        }
    }

    /// As [`EvaluationCrop::show`], with the default share and interpolation.
    ///
    /// # Errors
    /// As [`EvaluationCrop::show`].
    pub fn show(self, picture: &Rgb, size: [usize; 2]) -> Result<Vec<u8>, DataError> {
        EvaluationCrop::from(self).show(picture, size)
    }
}

/// The preprocessing of a picture in evaluation and prediction: its short side is resized, and
/// [crops](Crops) are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluationCrop {
    /// The parts that are shown.
    pub crops: Crops,
    /// The crop's share of the picture's resized short side, above 0 and at most 1: timm's
    /// `crop_pct`. At 224, 0.875 resizes to 256.
    pub share: f64,
    /// How the picture is resized.
    pub interpolation: Interpolation,
}

impl Default for EvaluationCrop {
    /// torchvision's: the centre, 0.875, bilinear.
    fn default() -> Self {
        Self {
            crops: Crops::Centre,
            share: 0.875,
            interpolation: Interpolation::Bilinear,
        }
    }
}

impl From<Crops> for EvaluationCrop {
    fn from(crops: Crops) -> Self {
        Self {
            crops,
            ..Self::default()
        }
    }
}

impl EvaluationCrop {
    /// The views of a picture, one after another, each height x width x 3 bytes: what a network
    /// that was validated on an [`ImageFolder`](super::ImageFolder) expects.
    ///
    /// # Errors
    /// When a side of the image is 0 or more than 65,535, or the share is out of range.
    pub fn show(self, picture: &Rgb, [height, width]: [usize; 2]) -> Result<Vec<u8>, DataError> {
        self.check()?;
        let (w, h) = sides([height, width])?;
        let mut bytes = vec![0; self.crops.views() * 3 * height * width];
        let view = View {
            width: picture.width,
            height: picture.height,
            channels: 3,
            samples: &picture.pixels[..],
        };
        self.write(view, w, h, &mut bytes).map_err(|reason| {
            DataError::Options(format!(
                "the picture cannot be resized and cropped: {reason}"
            ))
        })?;
        Ok(bytes)
    }

    /// Checks that the share is one.
    pub(super) fn check(self) -> Result<(), DataError> {
        if self.share > 0.0 && self.share <= 1.0 {
            return Ok(());
        }
        Err(DataError::Options(format!(
            "a crop's share of a picture's short side must be above 0 and at most 1, found {}",
            self.share
        )))
    }

    /// Writes the views of a picture.
    pub(super) fn write<T: Sample>(
        self,
        picture: View<'_, T>,
        width: u32,
        height: u32,
        into: &mut [T],
    ) -> Result<(), String> {
        let (w, h) = geometry::resized(picture.width, picture.height, width, height, self.share);
        let show = |crop: Rect, into: &mut [T]| {
            resize::resize_then_crop(picture, (w, h), crop, self.interpolation, into)
        };
        match self.crops {
            Crops::Centre => show(geometry::centre(w, h, width, height), into),
            Crops::Ten => {
                let crops = geometry::corners_and_centre(w, h, width, height);
                let (plain, mirrored) = into.split_at_mut(into.len() / 2);
                let length = plain.len() / crops.len();
                for (crop, view) in crops.iter().zip(plain.chunks_exact_mut(length)) {
                    show(*crop, view)?;
                }
                // The same five of the mirrored picture, so that its left is the picture's right.
                for (crop, view) in crops.iter().zip(mirrored.chunks_exact_mut(length)) {
                    let left = w - crop.width - crop.left;
                    show(Rect { left, ..*crop }, view)?;
                    resize::mirror(view, width as usize, picture.channels);
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Crops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.views().fmt(f)
    }
}

impl FromStr for Crops {
    type Err = String;

    /// By their number: `1` is the centre.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1" => Ok(Self::Centre),
            "10" => Ok(Self::Ten),
            _ => Err(format!("the number of crops must be 1 or 10, not {text}")),
        }
    }
}

/// JPEG's own limit.
const MAX_SIDE: u32 = 65_535;

/// Width and height of an image, of height and width.
pub(super) fn sides([height, width]: [usize; 2]) -> Result<(u32, u32), DataError> {
    let side = |side: usize| match u32::try_from(side) {
        Ok(side @ 1..=MAX_SIDE) => Ok(side),
        _ => Err(DataError::Options(format!(
            "images of {height}x{width} were requested; sides must be from 1 to {MAX_SIDE}"
        ))),
    };
    Ok((side(width)?, side(height)?))
}

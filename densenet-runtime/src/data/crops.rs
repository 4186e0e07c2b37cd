//! The part of a picture that the network sees in validation and prediction, where nothing is
//! random.

use std::fmt;
use std::str::FromStr;

use super::{
    DataError,
    decode::Rgb,
    geometry::{self, Rect},
    resize,
};

/// The part of a picture that is shown in evaluation. First the picture's short side is resized to
/// 256/224 of the crop's side (256 for 224).
///
/// [`ImageFolder`](super::ImageFolder) shows its pictures this way; [`show`](Self::show) does the
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
    /// The four corners and the centre, and the same mirrored (paper, table 3).
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

    /// The views of a picture, one after another, each height x width x 3 bytes: what a network
    /// that was validated on an [`ImageFolder`](super::ImageFolder) expects.
    ///
    /// # Errors
    /// When a side of the image is 0 or more than 65,535.
    pub fn show(self, picture: &Rgb, [height, width]: [usize; 2]) -> Result<Vec<u8>, DataError> {
        let (w, h) = sides([height, width])?;
        let mut bytes = vec![0; self.views() * 3 * height * width];
        self.write(picture, w, h, &mut bytes).map_err(|reason| {
            DataError::Options(format!("the picture cannot be shown: {reason}"))
        })?;
        Ok(bytes)
    }

    /// Writes the views of a picture.
    pub(super) fn write(
        self,
        picture: &Rgb,
        width: u32,
        height: u32,
        into: &mut [u8],
    ) -> Result<(), String> {
        let resized = geometry::resized(picture.width, picture.height, width, height);
        let show =
            |crop: Rect, into: &mut [u8]| resize::resize_then_crop(picture, resized, crop, into);
        let (w, h) = resized;
        match self {
            Self::Centre => show(geometry::centre(w, h, width, height), into),
            Self::Ten => {
                let crops = geometry::corners_and_centre(w, h, width, height);
                let (plain, mirrored) = into.split_at_mut(into.len() / 2);
                let bytes = plain.len() / crops.len();
                for (crop, view) in crops.iter().zip(plain.chunks_exact_mut(bytes)) {
                    show(*crop, view)?;
                }
                // The same five of the mirrored picture, so that its left is the picture's right.
                for (crop, view) in crops.iter().zip(mirrored.chunks_exact_mut(bytes)) {
                    let left = w - crop.width - crop.left;
                    show(Rect { left, ..*crop }, view)?;
                    resize::mirror(view, width as usize, 3);
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
            _ => Err(format!("{text} crops are not known; there are 1 and 10")),
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
            "images of {height}x{width} were asked for; sides from 1 to {MAX_SIDE} work"
        ))),
    };
    Ok((side(width)?, side(height)?))
}

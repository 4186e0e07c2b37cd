//! Pictures whose samples have more than 8 bits.

use super::{PictureError, Rgb, checked};

/// The values of samples that become 0 and 1. Values outside become the nearer of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleRange {
    /// What becomes 0.
    pub low: f32,
    /// What becomes 1; above `low`.
    pub high: f32,
}

impl SampleRange {
    /// Of bytes.
    pub const BYTES: Self = Self {
        low: 0.0,
        high: 255.0,
    };

    /// Whether both ends are numbers, and in order.
    pub fn is_valid(self) -> bool {
        self.low.is_finite() && self.high.is_finite() && self.low < self.high
    }

    /// A sample's share of the range, in [0, 1].
    pub(crate) fn share(self, sample: f32) -> f32 {
        ((sample - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// A picture whose samples have more than 8 bits, as they are in its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Deep {
    /// Width in pixels; at least 1.
    pub width: u32,
    /// Height in pixels; at least 1.
    pub height: u32,
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
    /// Height x width x channels; all are finite.
    pub samples: Vec<f32>,
    /// The range of the file's type: 0 to 65,535 for 16 bits, 0 to 1 for floats, a DICOM file's
    /// window. It is descending if the smallest sample is white (MONOCHROME1).
    pub range: SampleRange,
}

impl Deep {
    /// Checks what later stages rely on.
    pub(super) fn checked(self) -> Result<Self, PictureError> {
        let Self {
            width,
            height,
            channels,
            ..
        } = self;
        let expected = width as usize * height as usize * channels;
        if expected == 0 || self.samples.len() != expected {
            return Err(PictureError::Broken(format!(
                "{width}x{height} pixels of {channels} channels are {expected} samples, but {} \
                 were decoded",
                self.samples.len()
            )));
        }
        if !self.samples.iter().all(|sample| sample.is_finite()) {
            return Err(PictureError::Broken(
                "a sample is not a finite number".to_owned(),
            ));
        }
        Ok(self)
    }

    /// The upper 8 of the 16 bits that the range is divided into.
    pub(in crate::data) fn cut(&self) -> Result<Rgb, PictureError> {
        let SampleRange { low, high } = self.range;
        let scale = 65_535.0 / (f64::from(high) - f64::from(low));
        let cut = |sample: f32| ((f64::from(sample) - f64::from(low)) * scale / 256.0) as u8;
        let pixels = match self.channels {
            1 => self
                .samples
                .iter()
                .flat_map(|&grey| [cut(grey); 3])
                .collect(),
            _ => self.samples.iter().map(|&sample| cut(sample)).collect(),
        };
        checked(self.width, self.height, pixels)
    }
}

/// A decoded picture, as precise as its file.
#[derive(Clone, Debug, PartialEq)]
pub enum Picture {
    /// Of 8 bits a sample, or fewer.
    Bytes(Rgb),
    /// Of more.
    Deep(Deep),
}

impl Picture {
    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        match self {
            Self::Bytes(rgb) => (rgb.width, rgb.height),
            Self::Deep(deep) => (deep.width, deep.height),
        }
    }

    /// The picture in 8 bits.
    pub(super) fn into_bytes(self) -> Result<Rgb, PictureError> {
        match self {
            Self::Bytes(rgb) => Ok(rgb),
            Self::Deep(deep) => deep.cut(),
        }
    }
}

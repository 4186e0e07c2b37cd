//! Images in memory, of bytes or of floats.

use std::borrow::Cow;

use fast_image_resize::{
    PixelTrait,
    pixels::{F32, F32x3, U8, U8x3},
};

use super::{Depth, Picture, PictureError, Rgb, SampleRange};

/// The samples of images: bytes, or floats in [0, 1].
pub(super) trait Sample: bytemuck::Pod + Default + PartialOrd {
    /// A pixel of one channel, and of three, as the resizer calls them.
    type One: PixelTrait;
    type Three: PixelTrait;
    /// How pictures are decoded for them.
    const DEPTH: Depth;
    /// White.
    const MOST: f32;

    /// A value in [0, [`MOST`](Self::MOST)]; a value between two samples is truncated, as in torchvision.
    fn of(value: f32) -> Self;
    fn value(self) -> f32;

    /// The samples of a picture in one channel or three. Without a range they are those of the
    /// file's type.
    fn samples(
        picture: &Picture,
        channels: usize,
        range: Option<SampleRange>,
    ) -> Result<Cow<'_, [Self]>, PictureError>;
}

impl Sample for u8 {
    type One = U8;
    type Three = U8x3;
    const DEPTH: Depth = Depth::Bytes;
    const MOST: f32 = 255.0;

    fn of(value: f32) -> Self {
        value as u8
    }

    fn value(self) -> f32 {
        f32::from(self)
    }

    fn samples(
        picture: &Picture,
        channels: usize,
        _: Option<SampleRange>,
    ) -> Result<Cow<'_, [u8]>, PictureError> {
        match picture {
            Picture::Bytes(rgb) if channels == 1 => Ok(Cow::Owned(rgb.grey())),
            Picture::Bytes(rgb) => Ok(Cow::Borrowed(&rgb.pixels)),
            Picture::Deep(deep) => {
                let rgb = deep.cut()?;
                Ok(Cow::Owned(match channels {
                    1 => rgb.grey(),
                    _ => rgb.pixels,
                }))
            }
        }
    }
}

impl Sample for f32 {
    type One = F32;
    type Three = F32x3;
    const DEPTH: Depth = Depth::Floats;
    const MOST: f32 = 1.0;

    fn of(value: f32) -> Self {
        value
    }

    fn value(self) -> f32 {
        self
    }

    fn samples(
        picture: &Picture,
        channels: usize,
        range: Option<SampleRange>,
    ) -> Result<Cow<'_, [f32]>, PictureError> {
        let (given, of_file, samples): (_, _, Cow<'_, [f32]>) = match picture {
            Picture::Bytes(rgb) => {
                let samples = rgb.pixels.iter().map(|&byte| f32::from(byte));
                (3, SampleRange::BYTES, Cow::Owned(samples.collect()))
            }
            Picture::Deep(deep) => (deep.channels, deep.range, Cow::Borrowed(&deep.samples)),
        };
        // A descending range inverts the picture; a given range does not change that.
        let range = match range {
            Some(SampleRange { low, high }) if of_file.low > of_file.high => SampleRange {
                low: high,
                high: low,
            },
            Some(range) => range,
            None => of_file,
        };
        if !(range.low.is_finite() && range.high.is_finite() && range.low != range.high) {
            return Err(PictureError::Broken(format!(
                "its samples range from {} to {}, which is not a range",
                range.low, range.high
            )));
        }
        let shares = samples.iter().map(|&sample| range.share(sample));
        Ok(Cow::Owned(match (given, channels) {
            (1, 3) => shares.flat_map(|share| [share; 3]).collect(),
            (3, 1) => {
                let shares: Vec<f32> = shares.collect();
                let (pixels, _) = shares.as_chunks();
                pixels.iter().map(|&[r, g, b]| luma(r, g, b)).collect()
            }
            _ => shares.collect(),
        }))
    }
}

/// Rec. 601's grey.
pub(super) fn luma(red: f32, green: f32, blue: f32) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

impl Rgb {
    /// The picture in grey: Rec. 601's luma, as Pillow's `convert("L")` computes it.
    pub fn grey(&self) -> Vec<u8> {
        let (pixels, _) = self.pixels.as_chunks();
        let luma = |&[r, g, b]: &[u8; 3]| {
            let [r, g, b] = [r, g, b].map(u32::from);
            ((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16) as u8
        };
        pixels.iter().map(luma).collect()
    }
}

/// An image: height x width x channels, 1 or 3.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a, T> {
    pub width: u32,
    pub height: u32,
    pub channels: usize,
    pub samples: &'a [T],
}

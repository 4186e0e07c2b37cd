//! From a picture to an image of the network's size.

use std::{cell::RefCell, fmt, str::FromStr};

use fast_image_resize::{
    CropBoxError, FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedCroppedImage, TypedImage, TypedImageRef},
};

use super::{
    geometry::Rect,
    raster::{Sample, View},
};

thread_local! {
    /// Its buffers are kept from picture to picture.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// How pictures are resized: over a wider window where the picture shrinks, as in Pillow and
/// therefore torchvision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interpolation {
    /// Between two pixels, along each axis.
    #[default]
    Bilinear,
    /// Between four, sharper (Catmull and Rom's: a = -0.5).
    Bicubic,
}

impl Interpolation {
    fn algorithm(self) -> ResizeAlg {
        ResizeAlg::Convolution(match self {
            Self::Bilinear => FilterType::Bilinear,
            Self::Bicubic => FilterType::CatmullRom,
        })
    }
}

impl fmt::Display for Interpolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
        })
    }
}

impl FromStr for Interpolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "bilinear" => Ok(Self::Bilinear),
            "bicubic" => Ok(Self::Bicubic),
            _ => Err(format!(
                "the interpolation must be bilinear or bicubic, not {text}"
            )),
        }
    }
}

/// The region of a picture that is resized.
#[derive(Clone, Copy)]
enum Part {
    /// These pixels: none outside has any influence.
    Pixels(Rect),
    /// Left, top, width and height of a part whose edges may lie within pixels.
    Span([f64; 4]),
}

/// Crops first, then resizes the crop to `width` x `height`: no pixel outside the crop has any
/// influence.
pub(super) fn crop_then_resize<T: Sample>(
    picture: View<'_, T>,
    crop: Rect,
    width: u32,
    height: u32,
    how: Interpolation,
    into: &mut [T],
) -> Result<(), String> {
    resize(picture, Part::Pixels(crop), (width, height), how, into)
}

/// Writes the `crop` of the picture resized to `resized` (width, height), without computing the
/// rest of it.
pub(super) fn resize_then_crop<T: Sample>(
    picture: View<'_, T>,
    resized: (u32, u32),
    crop: Rect,
    how: Interpolation,
    into: &mut [T],
) -> Result<(), String> {
    let span = |from: u32, length: u32, resized: u32, side: u32| {
        let scale = f64::from(side) / f64::from(resized);
        let from = f64::from(from) * scale;
        // The clamp only guards against rounding.
        (
            from,
            (f64::from(length) * scale).min(f64::from(side) - from),
        )
    };
    let (left, width) = span(crop.left, crop.width, resized.0, picture.width);
    let (top, height) = span(crop.top, crop.height, resized.1, picture.height);
    let part = Part::Span([left, top, width, height]);
    resize(picture, part, (crop.width, crop.height), how, into)
}

fn resize<T: Sample>(
    picture: View<'_, T>,
    part: Part,
    size: (u32, u32),
    how: Interpolation,
    into: &mut [T],
) -> Result<(), String> {
    let View {
        width,
        height,
        channels,
        samples,
    } = picture;
    let source = (width, height, bytemuck::cast_slice(samples));
    let target = (size.0, size.1, bytemuck::cast_slice_mut(into));
    match channels {
        1 => resize_pixels::<T::One>(source, part, how, target),
        _ => resize_pixels::<T::Three>(source, part, how, target),
    }?;
    // Bicubic interpolation overshoots; floats are not kept within their range by the resizer.
    if how == Interpolation::Bicubic {
        let (least, most) = (T::of(0.0), T::of(T::MOST));
        for sample in into {
            if *sample < least {
                *sample = least;
            } else if *sample > most {
                *sample = most;
            }
        }
    }
    Ok(())
}

// The images are typed because untyped ones would compile the resizing of every pixel type into this
// crate: 70% of its code.
fn resize_pixels<P: PixelTrait>(
    (width, height, source): (u32, u32, &[u8]),
    part: Part,
    how: Interpolation,
    (w, h, target): (u32, u32, &mut [u8]),
) -> Result<(), String> {
    let source = TypedImageRef::<P>::from_buffer(width, height, source)
        .map_err(|error| error.to_string())?;
    let mut target =
        TypedImage::<P>::from_buffer(w, h, target).map_err(|error| error.to_string())?;
    let options = ResizeOptions::new().resize_alg(how.algorithm());
    let resized = RESIZER.with_borrow_mut(|resizer| match part {
        Part::Pixels(Rect {
            left,
            top,
            width,
            height,
        }) => {
            let crop = TypedCroppedImage::from_ref(&source, left, top, width, height);
            let crop = crop.map_err(outside)?;
            Ok(resizer.resize_typed(&crop, &mut target, &options))
        }
        Part::Span([left, top, width, height]) => {
            let options = options.crop(left, top, width, height);
            Ok(resizer.resize_typed(&source, &mut target, &options))
        }
    });
    resized.and_then(|resized| resized.map_err(|error| error.to_string()))
}

/// Mirrors an image of height x `width` x `channels` samples from left to right.
pub(super) fn mirror<T>(image: &mut [T], width: usize, channels: usize) {
    for row in image.chunks_exact_mut(width * channels) {
        for left in 0..width / 2 {
            let right = width - 1 - left;
            for channel in 0..channels {
                row.swap(left * channels + channel, right * channels + channel);
            }
        }
    }
}

/// Turns an image of `height` rows upside down.
pub(super) fn turn_over<T>(image: &mut [T], height: usize) {
    let row = image.len() / height.max(1);
    for above in 0..height / 2 {
        let below = height - 1 - above;
        let (first, second) = image.split_at_mut(below * row);
        first[above * row..][..row].swap_with_slice(&mut second[..row]);
    }
}

fn outside(error: CropBoxError) -> String {
    format!("the crop is not within the picture: {error}")
}

#[cfg(test)]
mod tests {
    use super::{Interpolation, Rect, View, crop_then_resize, mirror, turn_over};

    #[test]
    fn a_crop_shows_nothing_of_what_is_beside_it() {
        // Left half black, right half white.
        let row = [[0; 30], [255; 30]].concat();
        let pixels = row.repeat(10);
        let picture = View {
            width: 20,
            height: 10,
            channels: 3,
            samples: &pixels[..],
        };
        let left = Rect {
            left: 0,
            top: 0,
            width: 10,
            height: 10,
        };
        for side in [3, 10, 25] {
            let mut into = vec![7_u8; (3 * side * side) as usize];
            let how = Interpolation::Bicubic;
            crop_then_resize(picture, left, side, side, how, &mut into).unwrap();
            assert!(into.iter().all(|&byte| byte == 0), "{side}");
        }
    }

    #[test]
    fn mirroring_turns_pixels_round_and_keeps_their_channels() {
        let mut image = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16];
        mirror(&mut image, 3, 2);
        assert_eq!(image, [5, 6, 3, 4, 1, 2, 15, 16, 13, 14, 11, 12]);
    }

    #[test]
    fn turning_over_keeps_rows() {
        let mut image = [1, 2, 3, 4, 5, 6];
        turn_over(&mut image, 3);
        assert_eq!(image, [5, 6, 3, 4, 1, 2]);
    }
}

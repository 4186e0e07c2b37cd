//! From a picture to an image of the network's size.

use std::cell::RefCell;

use fast_image_resize::{
    CropBoxError, FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedCroppedImage, TypedImage, TypedImageRef},
    pixels::U8x3,
};

use super::{decode::Rgb, geometry::Rect};

thread_local! {
    /// Its buffers are kept from picture to picture.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// Bilinear interpolation, over a wider window where the picture shrinks, as in Pillow and
/// therefore torchvision.
const FILTER: ResizeAlg = ResizeAlg::Convolution(FilterType::Bilinear);

/// Crops first, then resizes the crop to `width` x `height`: no pixel outside the crop has any
/// influence.
pub(super) fn crop_then_resize(
    picture: &Rgb,
    crop: Rect,
    width: u32,
    height: u32,
    into: &mut [u8],
) -> Result<(), String> {
    let source = whole(picture)?;
    let Rect {
        left,
        top,
        width: w,
        height: h,
    } = crop;
    let source = TypedCroppedImage::from_ref(&source, left, top, w, h).map_err(outside)?;
    let mut target = target(width, height, into)?;
    let options = ResizeOptions::new().resize_alg(FILTER);
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut target, &options))
        .map_err(|error| error.to_string())
}

/// Writes the `crop` of the picture resized to `resized` (width, height), without computing the
/// rest of it.
pub(super) fn resize_then_crop(
    picture: &Rgb,
    resized: (u32, u32),
    crop: Rect,
    into: &mut [u8],
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
    let source = whole(picture)?;
    let mut target = target(crop.width, crop.height, into)?;
    let options = ResizeOptions::new()
        .resize_alg(FILTER)
        .crop(left, top, width, height);
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut target, &options))
        .map_err(|error| error.to_string())
}

/// Mirrors an image of height x `width` x `channels` bytes from left to right.
pub(super) fn mirror(image: &mut [u8], width: usize, channels: usize) {
    for row in image.chunks_exact_mut(width * channels) {
        for left in 0..width / 2 {
            let right = width - 1 - left;
            for channel in 0..channels {
                row.swap(left * channels + channel, right * channels + channel);
            }
        }
    }
}

// The images are typed because untyped ones would compile the resizing of every pixel type into this
// crate: 70% of its code.
fn whole(picture: &Rgb) -> Result<TypedImageRef<'_, U8x3>, String> {
    TypedImageRef::from_buffer(picture.width, picture.height, &picture.pixels)
        .map_err(|error| error.to_string())
}

fn target(width: u32, height: u32, into: &mut [u8]) -> Result<TypedImage<'_, U8x3>, String> {
    TypedImage::from_buffer(width, height, into).map_err(|error| error.to_string())
}

fn outside(error: CropBoxError) -> String {
    format!("the crop is not within the picture: {error}")
}

#[cfg(test)]
mod tests {
    use super::{Rect, Rgb, crop_then_resize, mirror};

    #[test]
    fn a_crop_shows_nothing_of_what_is_beside_it() {
        // Left half black, right half white.
        let row = [[0; 30], [255; 30]].concat();
        let picture = Rgb {
            width: 20,
            height: 10,
            pixels: row.repeat(10),
        };
        let left = Rect {
            left: 0,
            top: 0,
            width: 10,
            height: 10,
        };
        for side in [3, 10, 25] {
            let mut into = vec![7; (3 * side * side) as usize];
            crop_then_resize(&picture, left, side, side, &mut into).unwrap();
            assert!(into.iter().all(|&byte| byte == 0), "{side}");
        }
    }

    #[test]
    fn mirroring_turns_pixels_round_and_keeps_their_channels() {
        let mut image = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16];
        mirror(&mut image, 3, 2);
        assert_eq!(image, [5, 6, 3, 4, 1, 2, 15, 16, 13, 14, 11, 12]);
    }
}

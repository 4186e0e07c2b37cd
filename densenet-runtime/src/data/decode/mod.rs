//! From a picture file to RGB bytes, or to all bits of its samples.

mod bmp;
mod deep;
#[cfg(feature = "dicom")]
mod dicom;
mod gif;
mod jpeg;
mod png;
mod pnm;
mod tiff;
mod webp;

use std::{
    any::Any,
    fs,
    panic::{UnwindSafe, catch_unwind},
    path::Path,
};

use super::{DataError, PictureError};
pub use deep::{Deep, Picture, SampleRange};

/// The default limit on a picture's pixels: 179 million, as in Pillow.
pub const MAX_PIXELS: u64 = 2 * 89_478_485;

/// A decoded picture: height x width x 3 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Width in pixels; at least 1.
    pub width: u32,
    /// Height in pixels; at least 1.
    pub height: u32,
    /// Red, green and blue of each pixel, row by row.
    pub pixels: Vec<u8>,
}

/// Reads a picture of at most [`MAX_PIXELS`]: JPEG, PNG, WebP, TIFF, BMP, PNM, or the first frame
/// of a GIF; with the feature `dicom` also DICOM: one uncompressed grey frame, whose range is its
/// window, or else all its bits. The contents decide the format, not the name.
///
/// Grey, palette and 16-bit pictures become 8-bit RGB, transparency is dropped, CMYK is converted.
/// Colours of a TIFF that are multiplied by alpha are divided by it.
/// [`decode_deep`] keeps the bits.
/// An orientation in EXIF data is not applied; torchvision's default loader does not either.
///
/// # Strictness
/// Every pixel must be there. A JPEG is refused if its compressed data end early (even if an end
/// marker follows), are damaged, or lack a scan or a restart marker; a PNG is refused if rows are
/// missing, or if its header or palette does not match its checksum. Viewers, and in part Pillow, show the rest of such pictures.
///
/// Data that does not affect pixels is ignored, as in Pillow: a missing end marker or `IEND`, bytes
/// between the segments of a JPEG and after its data, damaged metadata, and the checksums of a
/// PNG's data chunks. The checksum within the data is checked if it exists.
///
/// # Errors
/// When the file cannot be read, is not a whole picture, has more pixels than allowed, or is a JPEG
/// that is arithmetic-coded, lossless, hierarchical or has 12 bits a sample. A panic in a decoder
/// becomes an error, too.
pub fn read(path: impl AsRef<Path>) -> Result<Rgb, DataError> {
    read_within(path.as_ref(), MAX_PIXELS)
}

/// [Reads](read) a picture of at most `max_pixels`, its width times its height. The limit is
/// checked before memory is allocated; decoding takes up to 15 bytes per pixel, and up to 60 for a
/// TIFF of 64 bits per sample.
///
/// # Errors
/// As [`read`].
pub fn read_within(path: &Path, max_pixels: u64) -> Result<Rgb, DataError> {
    let bytes = fs::read(path).map_err(DataError::io("read", path))?;
    decode_within(&bytes, max_pixels).map_err(|reason| DataError::Picture {
        path: path.to_owned(),
        reason,
    })
}

/// Decodes the bytes of a picture's file of at most [`MAX_PIXELS`], as [`read`] does.
///
/// # Errors
/// As [`read`].
pub fn decode(bytes: &[u8]) -> Result<Rgb, PictureError> {
    decode_within(bytes, MAX_PIXELS)
}

/// [Decodes](decode) a picture of at most `max_pixels`, as [`read_within`] does.
///
/// # Errors
/// As [`read`].
pub fn decode_within(bytes: &[u8], max_pixels: u64) -> Result<Rgb, PictureError> {
    picture(bytes, max_pixels, Depth::Bytes)?.into_bytes()
}

/// Decodes a picture of at most `max_pixels` as [`decode_within`] does, but keeps all bits of
/// samples that have more than 8: of PNG, TIFF and PNM files of 16 bits, and of TIFF files of floats.
///
/// # Errors
/// As [`read`].
pub fn decode_deep(bytes: &[u8], max_pixels: u64) -> Result<Picture, PictureError> {
    picture(bytes, max_pixels, Depth::Floats)
}

/// The format that a file's samples need; none if the file cannot be read.
pub(super) fn depth(bytes: &[u8], max_pixels: u64) -> Option<Depth> {
    match decode_deep(bytes, max_pixels).ok()? {
        Picture::Bytes(_) => Some(Depth::Bytes),
        Picture::Deep(_) => Some(Depth::Floats),
    }
}

/// The format of an image's samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Bytes: the upper 8 bits of samples with more.
    #[default]
    Bytes,
    /// Floats in [0, 1], with all bits of the files.
    Floats,
}

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
    WebP,
    Tiff,
    Bmp,
    Gif,
    Pnm,
    #[cfg(feature = "dicom")]
    Dicom,
}

impl Format {
    /// By how a file begins.
    fn of(bytes: &[u8]) -> Option<Self> {
        // Anything may come before what tells.
        #[cfg(feature = "dicom")]
        if dicom::is_dicom(bytes) {
            return Some(Self::Dicom);
        }
        Some(match bytes {
            [0xff, 0xd8, ..] => Self::Jpeg,
            [0x89, b'P', b'N', b'G', ..] => Self::Png,
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Self::WebP,
            // 42 in classic files, 43 in big ones.
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Self::Tiff,
            [b'B', b'M', ..] => Self::Bmp,
            [b'G', b'I', b'F', b'8', ..] => Self::Gif,
            [b'P', b'1'..=b'6', b' ' | b'\t'..=b'\r' | b'#', ..] => Self::Pnm,
            _ => return None,
        })
    }
}

/// Decodes a picture of any format.
pub(super) fn picture(
    bytes: &[u8],
    max_pixels: u64,
    depth: Depth,
) -> Result<Picture, PictureError> {
    if bytes.is_empty() {
        return Err(broken("the file is empty"));
    }
    let format = Format::of(bytes).ok_or_else(|| {
        broken(
            "it does not begin as a JPEG, PNG, WebP, TIFF, BMP, GIF or PNM file does; save it as one of them",
        )
    })?;
    caught(|| match format {
        Format::Jpeg => jpeg::decode(bytes, max_pixels).map(Picture::Bytes),
        Format::Png => png::decode(bytes, max_pixels, depth),
        Format::WebP => webp::decode(bytes, max_pixels).map(Picture::Bytes),
        Format::Tiff => tiff::decode(bytes, max_pixels),
        Format::Bmp => bmp::decode(bytes, max_pixels).map(Picture::Bytes),
        Format::Gif => gif::decode(bytes, max_pixels).map(Picture::Bytes),
        Format::Pnm => pnm::decode(bytes, max_pixels),
        #[cfg(feature = "dicom")]
        Format::Dicom => dicom::decode(bytes, max_pixels),
    })
}

/// Turns a panic into an error of the picture: decoders panic on some damaged files.
pub(super) fn caught<T>(
    decode: impl FnOnce() -> Result<T, PictureError> + UnwindSafe,
) -> Result<T, PictureError> {
    catch_unwind(decode).unwrap_or_else(|panic| {
        let message = message_of(&*panic);
        Err(PictureError::Broken(format!(
            "decoding it panicked: {message}"
        )))
    })
}

/// The message of a panic.
pub(super) fn message_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

fn broken(reason: impl Into<String>) -> PictureError {
    PictureError::Broken(reason.into())
}

fn too_few(width: u32, height: u32) -> PictureError {
    broken(format!(
        "it claims {width} x {height} pixels, for which its data are too few"
    ))
}

/// A vector of equal elements.
fn room<T: Clone>(length: usize, element: T) -> Result<Vec<T>, PictureError> {
    let mut room = Vec::new();
    room.try_reserve_exact(length)
        .map_err(|_| broken("there is not enough memory for it"))?;
    room.resize(length, element);
    Ok(room)
}

/// # Errors
/// When there are more pixels than allowed.
fn within(width: u32, height: u32, max_pixels: u64) -> Result<(), PictureError> {
    let (width, height) = (u64::from(width), u64::from(height));
    match width * height <= max_pixels {
        true => Ok(()),
        false => Err(PictureError::TooLarge {
            width,
            height,
            limit: max_pixels,
        }),
    }
}

/// Checks what later stages rely on.
fn checked(width: u32, height: u32, pixels: Vec<u8>) -> Result<Rgb, PictureError> {
    let expected = 3 * width as usize * height as usize;
    if expected == 0 || pixels.len() != expected {
        return Err(PictureError::Broken(format!(
            "{width}x{height} pixels in RGB are {expected} bytes, but {} were decoded",
            pixels.len()
        )));
    }
    Ok(Rgb {
        width,
        height,
        pixels,
    })
}

#[cfg(test)]
mod tests {
    use super::{PictureError, caught};

    #[test]
    fn a_panic_while_decoding_is_an_error_of_the_picture() {
        let error = caught::<()>(|| panic!("row {} of 3", 4)).unwrap_err();
        assert!(matches!(error, PictureError::Broken(_)));
        assert!(
            error
                .to_string()
                .ends_with("decoding it panicked: row 4 of 3")
        );
    }
}

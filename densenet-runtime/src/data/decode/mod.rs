//! From a picture file to RGB bytes.

mod jpeg;
mod png;

use std::{
    any::Any,
    fs,
    panic::{UnwindSafe, catch_unwind},
    path::Path,
};

use super::{DataError, PictureError};

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

/// Reads a JPEG or PNG picture of at most [`MAX_PIXELS`]. The contents decide which it is, not the
/// name.
///
/// Grey, palette and 16-bit pictures become 8-bit RGB, transparency is dropped, CMYK is converted.
/// An orientation in EXIF data is not applied; torchvision's default loader does not either.
///
/// # Strictness
/// Every pixel must be there. A JPEG is refused if its compressed data end early (even if an end
/// marker follows), are damaged, or lack a scan or a restart marker; a PNG is refused if rows are
/// missing, or if its header or palette does not match its checksum. Viewers, and in part Pillow,
/// show what is left of such pictures.
///
/// What does not affect pixels is ignored, as by Pillow: a missing end marker or `IEND`, bytes
/// between the segments of a JPEG and after its data, damaged metadata, and the checksums of a
/// PNG's data chunks. The checksum within the data is checked if it is there.
///
/// # Errors
/// When the file cannot be read, is not a whole picture, has more pixels than allowed, or is a JPEG
/// that is arithmetic-coded, lossless, hierarchical or has 12 bits a sample. A panic in a decoder
/// becomes an error, too.
pub fn read(path: impl AsRef<Path>) -> Result<Rgb, DataError> {
    read_within(path.as_ref(), MAX_PIXELS)
}

/// [Reads](read) a picture of at most `max_pixels`, its width times its height. The limit is
/// checked before memory is allocated; decoding takes up to 15 bytes a pixel.
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

/// Decodes the bytes of a JPEG or PNG file of at most [`MAX_PIXELS`], as [`read`] does.
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
    let broken = |reason: &str| Err(PictureError::Broken(reason.to_owned()));
    match bytes {
        [] => broken("the file is empty"),
        [0xff, 0xd8, ..] => caught(|| jpeg::decode(bytes, max_pixels)),
        [0x89, b'P', b'N', b'G', ..] => caught(|| png::decode(bytes, max_pixels)),
        _ => broken("it does not begin as either"),
    }
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

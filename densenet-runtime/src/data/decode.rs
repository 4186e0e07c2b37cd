//! From a picture file to RGB bytes.

use std::{fs, path::Path};

use image::ImageFormat;
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

use super::DataError;

/// A decoded picture: height x width x 3 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Columns; at least one.
    pub width: u32,
    /// Rows; at least one.
    pub height: u32,
    /// Red, green and blue of each pixel, row by row.
    pub pixels: Vec<u8>,
}

/// Reads a JPEG or PNG picture; the contents decide which, not the name.
///
/// Grey, palette and 16-bit pictures become 8-bit RGB, transparency is dropped, CMYK is converted.
/// An orientation in EXIF data is not applied; torchvision's default loader does not either.
///
/// # Errors
/// When the file cannot be read or is not a whole picture. A JPEG that ends early or has damaged
/// data is an error, though most viewers show the part that is there.
pub fn read(path: &Path) -> Result<Rgb, DataError> {
    let bytes = fs::read(path).map_err(DataError::io("read", path))?;
    decode(&bytes).map_err(|reason| DataError::Picture {
        path: path.to_owned(),
        reason,
    })
}

/// Decodes a JPEG or PNG picture.
fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    match bytes {
        [] => Err("the file is empty".to_owned()),
        [0xff, 0xd8, ..] => jpeg(bytes),
        [0x89, b'P', b'N', b'G', ..] => png(bytes),
        _ => Err("it starts like neither".to_owned()),
    }
}

fn jpeg(bytes: &[u8]) -> Result<Rgb, String> {
    if !reaches_its_end(bytes) {
        return Err("the file ends before the picture does".to_owned());
    }
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let pixels = decoder.decode().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions().ok_or("it has no size")?;
    checked(width as u32, height as u32, pixels)
}

fn png(bytes: &[u8]) -> Result<Rgb, String> {
    let picture = image::load_from_memory_with_format(bytes, ImageFormat::Png)
        .map_err(|error| error.to_string())?
        .into_rgb8();
    checked(picture.width(), picture.height(), picture.into_raw())
}

/// Holds the decoders to what the rest of the way relies on.
fn checked(width: u32, height: u32, pixels: Vec<u8>) -> Result<Rgb, String> {
    let expected = 3 * width as usize * height as usize;
    if expected == 0 || pixels.len() != expected {
        return Err(format!(
            "{width}x{height} pixels in RGB are {expected} bytes, but {} were decoded",
            pixels.len()
        ));
    }
    Ok(Rgb {
        width,
        height,
        pixels,
    })
}

/// Whether a JPEG file has its end marker where a decoder looks for it: behind the scans, not in
/// a thumbnail within a header.
///
/// The decoder tells most files that end early, but not those that lack only the last few bytes.
fn reaches_its_end(bytes: &[u8]) -> bool {
    const START_OF_IMAGE: u8 = 0xd8;
    const END_OF_IMAGE: u8 = 0xd9;
    // Within a scan, 0xff is followed by one of these where it is no marker.
    const STUFFING: u8 = 0x00;
    const FILL: u8 = 0xff;
    const RESTART: std::ops::RangeInclusive<u8> = 0xd0..=0xd7;

    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == 0xff) {
        match rest.get(at + 1) {
            None => return false,
            Some(&END_OF_IMAGE) => return true,
            Some(&FILL) => rest = &rest[at + 1..],
            Some(&STUFFING | &START_OF_IMAGE) => rest = &rest[at + 2..],
            Some(marker) if RESTART.contains(marker) => rest = &rest[at + 2..],
            Some(_) => {
                let Some(&[high, low]) = rest.get(at + 2..at + 4) else {
                    return false;
                };
                let length = usize::from(u16::from_be_bytes([high, low]));
                let Some(behind) = rest.get(at + 2 + length..) else {
                    return false;
                };
                rest = behind;
            }
        }
    }
    false
}

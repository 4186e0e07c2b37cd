//! JPEG, decoded bit for bit as by libjpeg and therefore Pillow, with any layout of scans, sampling
//! and restart intervals.
//!
//! The decoder is our own because no crate gets all of this right. zune-jpeg and jpeg-decoder both
//! decode some layouts wrongly without an error (components in separate scans, luma that is not
//! sampled most finely, narrow pictures, the last column of most), and neither reports a picture
//! that is truncated before an end marker.

mod block;
mod header;
mod huffman;
mod idct;
mod picture;
mod rgb;
mod standard;

use super::{PictureError, Rgb, checked};
use header::{Process, Reader};
use picture::Decoding;

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Broken {
    #[error("the file ends before the picture does, or a part of it is missing")]
    Ended,
    #[error("a restart marker is missing or not in its place")]
    Restart,
    #[error("its compressed data are damaged")]
    Data,
    #[error("a Huffman or quantization table is missing or makes no sense")]
    Tables,
    #[error("a scan repeats earlier data, or refines data that are missing")]
    Order,
    #[error("{0} makes no sense")]
    Segment(&'static str),
    #[error("a second picture begins within it")]
    Second,
    #[error("it has more than {MOST_SCANS} scans")]
    Scans,
    #[error("it claims {0} x {1} pixels, for which its data are too few")]
    Claim(usize, usize),
    #[error("there is not enough memory for it")]
    Memory,
}

impl From<Broken> for PictureError {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken.to_string())
    }
}

/// A kind of JPEG that is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Arithmetic,
    Lossless,
    JpegLs,
    Hierarchical,
    TwelveBits,
    NoHeight,
    Fractions,
    Components(u8),
}

impl From<Kind> for PictureError {
    fn from(kind: Kind) -> Self {
        Self::Unsupported(match kind {
            Kind::Arithmetic => "an arithmetic-coded JPEG".to_owned(),
            Kind::Lossless => "a lossless JPEG".to_owned(),
            Kind::JpegLs => "a JPEG-LS picture".to_owned(),
            Kind::Hierarchical => "a hierarchical JPEG".to_owned(),
            Kind::TwelveBits => "a JPEG with 12 bits a sample".to_owned(),
            Kind::NoHeight => "a JPEG whose height follows its data (DNL)".to_owned(),
            Kind::Fractions => {
                "a JPEG whose components are sampled at ratios that are not whole".to_owned()
            }
            Kind::Components(count) => format!("a JPEG of {count} components"),
        })
    }
}

/// No real picture has more scans than this; decoding them would only cost time.
const MOST_SCANS: usize = 256;

/// Decodes a file that begins as a JPEG does.
pub(super) fn decode(file: &[u8], max_pixels: u64) -> Result<Rgb, PictureError> {
    let mut reader = Reader::new(file, max_pixels);
    let mut scan = reader.scan()?.ok_or(Broken::Ended)?;
    let frame = reader.frame.clone().ok_or(Broken::Ended)?;
    let colour = reader.colour(&frame);
    // A block takes at least one bit, and a second one unless it is spread over several scans.
    let bits_a_block = match frame.process {
        Process::Sequential => 2,
        Process::Progressive => 1,
    };
    let bits = 8 * (scan.data.len() + reader.left());
    if bits < bits_a_block * frame.least_blocks() {
        return Err(Broken::Claim(frame.width, frame.height).into());
    }
    let (width, height) = (frame.width as u32, frame.height as u32);
    let mut picture = Decoding::new(frame)?;
    for _ in 0..MOST_SCANS {
        picture.take(&scan, &reader)?;
        if picture.is_complete() {
            picture.finish();
            return checked(width, height, picture.rgb(colour)?);
        }
        scan = reader.scan()?.ok_or(Broken::Ended)?;
    }
    Err(Broken::Scans.into())
}

/// A vector of equal elements; an error if there is no memory for it.
fn room<T: Clone>(length: usize, element: T) -> Result<Vec<T>, Broken> {
    let mut room = Vec::new();
    room.try_reserve_exact(length).map_err(|_| Broken::Memory)?;
    room.resize(length, element);
    Ok(room)
}

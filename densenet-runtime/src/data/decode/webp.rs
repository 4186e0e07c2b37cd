//! WebP, lossy and lossless; the first frame of an animation.

use std::io::Cursor;

use image_webp::{DecodingError, WebPDecoder};

use super::{PictureError, Rgb, broken, checked, room, within};

/// Decodes a file that begins as a WebP file does.
pub(super) fn decode(file: &[u8], max_pixels: u64) -> Result<Rgb, PictureError> {
    let failed = |error: DecodingError| broken(error.to_string());
    let mut decoder = WebPDecoder::new(Cursor::new(file)).map_err(failed)?;
    let (width, height) = decoder.dimensions();
    within(width, height, max_pixels)?;
    for (width, height) in claims(file) {
        within(width, height, max_pixels)?;
    }
    let size = decoder
        .output_buffer_size()
        .ok_or_else(|| broken("its size makes no sense"))?;
    let mut pixels = room(size, 0)?;
    decoder.read_image(&mut pixels).map_err(failed)?;
    if decoder.has_alpha() {
        // Without transparency, in place.
        for at in 0..pixels.len() / 4 {
            pixels.copy_within(4 * at..4 * at + 3, 3 * at);
        }
        pixels.truncate(pixels.len() / 4 * 3);
    }
    checked(width, height, pixels)
}

/// What the pictures in a file say their sizes are, which need not be what the file says.
fn claims(file: &[u8]) -> Vec<(u32, u32)> {
    let mut claims = Vec::new();
    let mut rest = file.get(12..).unwrap_or_default();
    while let Some((&[n0, n1, n2, n3, s0, s1, s2, s3], contents)) = rest.split_first_chunk::<8>() {
        let bits = |at: usize| contents.get(at..).and_then(|rest| rest.first_chunk());
        match &[n0, n1, n2, n3] {
            b"VP8 " => {
                // A frame's tag and a start code come first.
                if let Some(&[w0, w1, h0, h1]) = bits(6) {
                    let side = |bytes| u32::from(u16::from_le_bytes(bytes) & 0x3fff);
                    claims.push((side([w0, w1]), side([h0, h1])));
                }
            }
            b"VP8L" => {
                if let Some(&bytes) = bits(1) {
                    let bits = u32::from_le_bytes(bytes);
                    claims.push(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1));
                }
            }
            _ => {}
        }
        let length = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        rest = contents
            .get(length.next_multiple_of(2)..)
            .unwrap_or_default();
    }
    claims
}

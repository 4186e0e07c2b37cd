//! PNG, row by row.
//!
//! Only the chunks that pixels depend on go to the decoder, so that others may be damaged or
//! missing.

use std::io::Cursor;

use png::{
    BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Limits, Reader, Transformations,
};

use super::{
    Depth, PictureError, broken, checked,
    deep::{Deep, Picture, SampleRange},
    too_few, within,
};

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Deflate expands one byte to at most this many.
const MOST_INFLATED: u64 = 1032;

/// Decodes a file that begins as a PNG does.
pub(super) fn decode(file: &[u8], max_pixels: u64, depth: Depth) -> Result<Picture, PictureError> {
    let Chunks {
        header,
        palette,
        data,
    } = Chunks::of(file)?;
    let &[w3, w2, w1, w0, h3, h2, h1, h0, bits, kind, _, _, _] = header;
    let width = u32::from_be_bytes([w3, w2, w1, w0]);
    let height = u32::from_be_bytes([h3, h2, h1, h0]);
    within(width, height, max_pixels)?;
    let samples = [1, 0, 3, 1, 2, 0, 4][usize::from(kind.min(6))];
    let row = (u64::from(width) * u64::from(bits) * samples).div_ceil(8);
    let length: usize = data.iter().map(|data| data.len()).sum();
    if u64::from(height) * row > MOST_INFLATED * length as u64 {
        return Err(too_few(width, height));
    }
    let mut plain = Vec::with_capacity(length + (1 << 10));
    plain.extend(SIGNATURE);
    put(&mut plain, *b"IHDR", &[header]);
    if kind == 3 {
        put(&mut plain, *b"PLTE", &[&whole(palette, bits)?]);
    }
    put(&mut plain, *b"IDAT", &data);
    put(&mut plain, *b"IEND", &[]);
    let failed = |error: DecodingError| broken(error.to_string());
    if depth == Depth::Floats && bits == 16 {
        let deep = deep(&plain, width, height).map_err(failed)?;
        return Ok(Picture::Deep(deep.checked()?));
    }
    let pixels = pixels(&plain, width, height).map_err(failed)?;
    Ok(Picture::Bytes(checked(width, height, pixels)?))
}

/// The chunks that pixels depend on.
struct Chunks<'a> {
    header: &'a [u8; 13],
    palette: Option<&'a [u8]>,
    /// The compressed data, which may be in several chunks.
    data: Vec<&'a [u8]>,
}

impl<'a> Chunks<'a> {
    /// Walks the chunks up to the last one of data. Like Pillow, whose reader this follows, it
    /// ignores the checksums of data chunks (but not the one within the data) and how the file
    /// ends.
    fn of(file: &'a [u8]) -> Result<Self, PictureError> {
        let (mut header, mut palette, mut data) = (None, None, Vec::new());
        let mut rest = file.strip_prefix(&SIGNATURE).unwrap_or_default();
        while let Some((&[l3, l2, l1, l0, name @ ..], behind)) = rest.split_first_chunk::<8>() {
            let length = u32::from_be_bytes([l3, l2, l1, l0]) as usize;
            let contents = &behind[..length.min(behind.len())];
            let behind = &behind[contents.len()..];
            let is_as_summed = || {
                let mut sum = crc32fast::Hasher::new();
                sum.update(&name);
                sum.update(contents);
                behind.starts_with(&sum.finalize().to_be_bytes())
            };
            match &name {
                b"IDAT" => data.push(contents),
                _ if !data.is_empty() => break,
                b"IEND" => break,
                b"IHDR" if is_as_summed() => header = Some(contents),
                b"PLTE" if is_as_summed() => palette = Some(contents),
                b"IHDR" | b"PLTE" => {
                    return Err(broken("the checksum of its header or palette is wrong"));
                }
                _ => {}
            }
            rest = behind.get(4..).unwrap_or_default();
        }
        let header = header.ok_or_else(|| broken("it has no header"))?;
        Ok(Self {
            header: header
                .try_into()
                .map_err(|_| broken("its header is not 13 bytes long"))?,
            palette,
            data,
        })
    }
}

/// A palette with every colour that a pixel can name: those missing are black, as in Pillow.
fn whole(palette: Option<&[u8]>, depth: u8) -> Result<Vec<u8>, PictureError> {
    let palette = palette.ok_or_else(|| broken("it has no palette"))?;
    let mut palette = palette[..palette.len() - palette.len() % 3].to_vec();
    palette.resize(3 << depth.min(8), 0);
    Ok(palette)
}

/// Adds a chunk. Its checksum is never read.
fn put(file: &mut Vec<u8>, name: [u8; 4], contents: &[&[u8]]) {
    let length: usize = contents.iter().map(|contents| contents.len()).sum();
    file.extend((length as u32).to_be_bytes());
    file.extend(name);
    contents
        .iter()
        .for_each(|contents| file.extend_from_slice(contents));
    file.extend([0; 4]);
}

/// Reads what follows the header.
fn reader(file: &[u8], how: Transformations) -> Result<Reader<Cursor<&[u8]>>, DecodingError> {
    let mut options = DecodeOptions::default();
    options.set_ignore_crc(true);
    options.set_ignore_adler32(false);
    let mut decoder = Decoder::new_with_options(Cursor::new(file), options);
    // Its limit counts bytes; ours counts pixels.
    decoder.set_limits(Limits { bytes: usize::MAX });
    decoder.set_transformations(how);
    decoder.read_info()
}

/// The pixels of a picture of 16 bits a sample, without transparency.
fn deep(file: &[u8], width: u32, height: u32) -> Result<Deep, DecodingError> {
    let mut reader = reader(file, Transformations::IDENTITY)?;
    let (color, _) = reader.output_color_type();
    let (count, channels) = match color {
        ColorType::Grayscale | ColorType::Indexed => (1, 1),
        ColorType::GrayscaleAlpha => (2, 1),
        ColorType::Rgb => (3, 3),
        ColorType::Rgba => (4, 3),
    };
    let area = width as usize * height as usize;
    let mut samples = Vec::new();
    samples
        .try_reserve_exact(channels * area)
        .map_err(|_| DecodingError::LimitsExceeded)?;
    let mut add = |bytes: &[u8]| {
        for pixel in bytes.chunks_exact(2 * count) {
            let (values, _) = pixel.as_chunks();
            let values = values.iter().take(channels);
            samples.extend(values.map(|&bytes| f32::from(u16::from_be_bytes(bytes))));
        }
    };
    if reader.info().interlaced {
        let mut bytes = vec![0; 2 * count * area];
        reader.next_frame(&mut bytes)?;
        add(&bytes);
    } else {
        while let Some(row) = reader.next_row()? {
            add(row.data());
        }
    }
    is_as_summed(&mut reader)?;
    Ok(Deep {
        width,
        height,
        channels,
        samples,
        range: SampleRange {
            low: 0.0,
            high: 65_535.0,
        },
    })
}

/// The pixels in RGB.
fn pixels(file: &[u8], width: u32, height: u32) -> Result<Vec<u8>, DecodingError> {
    let mut reader = reader(file, Transformations::EXPAND | Transformations::STRIP_16)?;
    let (width, height) = (width as usize, height as usize);
    let mut pixels = Vec::new();
    pixels
        .try_reserve_exact(3 * width * height)
        .map_err(|_| DecodingError::LimitsExceeded)?;
    let (color, depth) = reader.output_color_type();
    assert_eq!(
        depth,
        BitDepth::Eight,
        "16 bits are stripped, fewer expanded"
    );
    if reader.info().interlaced {
        let mut samples = vec![0; width * height * color.samples()];
        reader.next_frame(&mut samples)?;
        add(color, &samples, &mut pixels);
    } else {
        while let Some(row) = reader.next_row()? {
            add(color, row.data(), &mut pixels);
        }
    }
    is_as_summed(&mut reader)?;
    Ok(pixels)
}

/// Checks the checksum of the data, if it exists.
fn is_as_summed(reader: &mut Reader<Cursor<&[u8]>>) -> Result<(), DecodingError> {
    match reader.finish() {
        Err(error @ DecodingError::Format(_)) => Err(error),
        // All rows exist, but the rest is missing.
        _ => Ok(()),
    }
}

/// Adds pixels of another colour type as RGB, without transparency.
fn add(color: ColorType, samples: &[u8], pixels: &mut Vec<u8>) {
    match color {
        ColorType::Rgb | ColorType::Indexed => pixels.extend_from_slice(samples),
        ColorType::Rgba => {
            let (samples, _) = samples.as_chunks::<4>();
            pixels.extend(samples.iter().flat_map(|&[r, g, b, _]| [r, g, b]));
        }
        ColorType::Grayscale => pixels.extend(samples.iter().flat_map(|&grey| [grey; 3])),
        ColorType::GrayscaleAlpha => {
            let (samples, _) = samples.as_chunks::<2>();
            pixels.extend(samples.iter().flat_map(|&[grey, _]| [grey; 3]));
        }
    }
}

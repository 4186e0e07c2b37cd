//! BMP: palettes, 16, 24 and 32 bits, bit fields and run lengths.
//!
//! The decoder is our own because it is short, and the crates with one bring much more.

use super::{PictureError, Rgb, broken, checked, room, too_few, within};

/// Decodes a file that begins as a BMP does.
pub(super) fn decode(file: &[u8], max_pixels: u64) -> Result<Rgb, PictureError> {
    let header = Header::of(file)?;
    within(header.width, header.height, max_pixels)?;
    let data = file.get(header.data..).unwrap_or_default();
    let (width, height) = (header.width as usize, header.height as usize);
    let indices = |samples: Vec<u8>| -> Result<Vec<u8>, PictureError> {
        let mut pixels = Vec::new();
        pixels
            .try_reserve_exact(3 * width * height)
            .map_err(|_| broken("there is not enough memory for it"))?;
        pixels.extend(samples.iter().flat_map(|&sample| {
            header
                .palette
                .get(usize::from(sample))
                .copied()
                .unwrap_or_default()
        }));
        Ok(pixels)
    };
    let mut pixels = match (header.bits, header.compression) {
        (8, 1) => indices(runs(data, &header, false)?)?,
        (4, 2) => indices(runs(data, &header, true)?)?,
        (bits, 0 | 3 | 6) => {
            // Rows are filled up to 4 bytes; the last one need not be.
            let used = (width * usize::from(bits)).div_ceil(8);
            let stride = used.next_multiple_of(4);
            if data.len() < stride * (height - 1) + used {
                return Err(too_few(header.width, header.height));
            }
            let rows = (0..height).map(|row| &data[row * stride..][..used]);
            match bits {
                1 | 4 | 8 => {
                    let mut samples = room(width * height, 0)?;
                    for (row, into) in rows.zip(samples.chunks_exact_mut(width)) {
                        unpack(row, bits, into);
                    }
                    indices(samples)?
                }
                _ => {
                    let mut pixels = room(3 * width * height, 0)?;
                    for (row, into) in rows.zip(pixels.chunks_exact_mut(3 * width)) {
                        header.colours(row, into);
                    }
                    pixels
                }
            }
        }
        (bits, compression) => {
            return Err(PictureError::Unsupported(format!(
                "a BMP of {bits} bits with compression {compression}"
            )));
        }
    };
    if !header.top_down {
        let row = 3 * width;
        for y in 0..height / 2 {
            let (above, below) = pixels.split_at_mut((height - 1 - y) * row);
            above[y * row..][..row].swap_with_slice(&mut below[..row]);
        }
    }
    checked(header.width, header.height, pixels)
}

struct Header {
    width: u32,
    height: u32,
    top_down: bool,
    bits: u16,
    compression: u32,
    /// Where red, green and blue are in a pixel of 16 or 32 bits.
    masks: [u32; 3],
    palette: Vec<[u8; 3]>,
    /// Where the pixels begin.
    data: usize,
}

impl Header {
    fn of(file: &[u8]) -> Result<Self, PictureError> {
        let short = |at: usize| number(file, at).map(u32::from);
        let long =
            |at: usize| -> Result<u32, PictureError> { Ok(short(at)? | short(at + 2)? << 16) };
        let data = long(10)? as usize;
        let size = long(14)?;
        let end = 14 + size as usize;
        let nonsense = || broken("its header makes no sense");
        let mut header = match size {
            12 => Self {
                width: short(18)?,
                height: short(20)?,
                top_down: false,
                bits: number(file, 24)?,
                compression: 0,
                masks: [0; 3],
                palette: Vec::new(),
                data,
            },
            40.. => {
                let height = long(22)? as i32;
                Self {
                    width: long(18)?,
                    height: height.unsigned_abs(),
                    top_down: height < 0,
                    bits: number(file, 28)?,
                    compression: long(30)?,
                    masks: [0; 3],
                    palette: Vec::new(),
                    data,
                }
            }
            _ => return Err(nonsense()),
        };
        let Self {
            width,
            height,
            bits,
            compression,
            ..
        } = header;
        // Height and width are signed.
        if width == 0 || height == 0 || width > i32::MAX as u32 {
            return Err(broken(format!("{width} x {height} pixels make no sense")));
        }
        let has_masks = matches!(compression, 3 | 6);
        header.masks = match bits {
            16 | 32 if has_masks => [long(54)?, long(58)?, long(62)?],
            16 => [0x7c00, 0x3e0, 0x1f],
            24 | 32 => [0xff_0000, 0xff00, 0xff],
            1 | 4 | 8 => [0; 3],
            _ => {
                return Err(PictureError::Unsupported(format!(
                    "a BMP of {bits} bits a pixel"
                )));
            }
        };
        let is_whole = |mask: u32| {
            let mask = mask >> mask.trailing_zeros().min(31);
            mask != 0 && mask & mask.wrapping_add(1) == 0
        };
        if bits > 8 && !header.masks.iter().all(|&mask| is_whole(mask)) {
            return Err(broken("its bit fields make no sense"));
        }
        if bits <= 8 {
            let colours = match size {
                12 => 0,
                _ => long(46)?.min(256),
            };
            let count = if colours == 0 {
                1 << bits
            } else {
                colours as usize
            };
            let bytes = if size == 12 { 3 } else { 4 };
            let listed = file.get(end..).unwrap_or_default();
            let listed = listed.chunks_exact(bytes).take(count);
            header.palette = listed
                .map(|colour| [colour[2], colour[1], colour[0]])
                .collect();
            // Those missing are black, as in Pillow.
            header.palette.resize(256, [0; 3]);
        }
        Ok(header)
    }

    /// Writes a row of pixels of 16, 24 or 32 bits.
    fn colours(&self, row: &[u8], into: &mut [u8]) {
        let field = |pixel: u32, mask: u32| {
            let shift = mask.trailing_zeros();
            let (value, most) = (u64::from((pixel & mask) >> shift), u64::from(mask >> shift));
            (value * 255 / most) as u8
        };
        let bytes = usize::from(self.bits / 8);
        for (pixel, into) in row.chunks_exact(bytes).zip(into.chunks_exact_mut(3)) {
            let mut word = [0; 4];
            word[..bytes].copy_from_slice(pixel);
            let word = u32::from_le_bytes(word);
            for (&mask, into) in self.masks.iter().zip(into) {
                *into = field(word, mask);
            }
        }
    }
}

fn number(file: &[u8], at: usize) -> Result<u16, PictureError> {
    let bytes = file.get(at..).and_then(|rest| rest.first_chunk());
    let bytes = bytes.ok_or_else(|| broken("its header is cut short"))?;
    Ok(u16::from_le_bytes(*bytes))
}

/// Samples of 1, 2, 4 or 8 bits, the uppermost first.
pub(super) fn unpack(row: &[u8], bits: u16, into: &mut [u8]) {
    let bits = usize::from(bits);
    let (a_byte, mask) = (8 / bits, (0xff_u16 >> (8 - bits)) as u8);
    for (x, sample) in into.iter_mut().enumerate() {
        let byte = row.get(x / a_byte).copied().unwrap_or_default();
        *sample = byte >> (8 - bits * (x % a_byte + 1)) & mask;
    }
}

/// Run lengths of 4 or 8 bits. Pixels that are left out have index 0.
fn runs(data: &[u8], header: &Header, is_of_four: bool) -> Result<Vec<u8>, PictureError> {
    let (width, height) = (header.width as usize, header.height as usize);
    let mut samples = room(width * height, 0)?;
    let (mut x, mut y) = (0, 0);
    let mut rest = data;
    let mut put = |x: &mut usize, y: usize, sample: u8| {
        if *x < width && y < height {
            samples[y * width + *x] = sample;
        }
        *x += 1;
    };
    let half = |byte: u8, at: usize| {
        if at.is_multiple_of(2) {
            byte >> 4
        } else {
            byte & 15
        }
    };
    while let Some((&[count, value], behind)) = rest.split_first_chunk() {
        rest = behind;
        match (count, value) {
            (1.., _) => {
                for at in 0..usize::from(count) {
                    let sample = if is_of_four { half(value, at) } else { value };
                    put(&mut x, y, sample);
                }
            }
            (0, 0) => (x, y) = (0, y + 1),
            (0, 1) => return Ok(samples),
            (0, 2) => {
                let Some((&[right, up], behind)) = rest.split_first_chunk() else {
                    break;
                };
                rest = behind;
                (x, y) = (x + usize::from(right), y + usize::from(up));
            }
            (0, count) => {
                let count = usize::from(count);
                let bytes = if is_of_four { count.div_ceil(2) } else { count };
                let Some((literal, behind)) = rest.split_at_checked(bytes) else {
                    break;
                };
                // Filled up to 2 bytes.
                rest = behind.get(bytes % 2..).unwrap_or_default();
                for at in 0..count {
                    let sample = match is_of_four {
                        true => half(literal[at / 2], at),
                        false => literal[at],
                    };
                    put(&mut x, y, sample);
                }
            }
        }
    }
    // Without an end, all rows must be there.
    if y >= height || (y + 1 == height && x >= width) {
        return Ok(samples);
    }
    Err(broken("its run lengths end before the picture does"))
}

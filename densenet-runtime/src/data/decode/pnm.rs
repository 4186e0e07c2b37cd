//! PNM: bitmaps, greymaps and pixmaps (`P1` to `P6`), in text and in binary.

use super::{
    PictureError, broken, checked,
    deep::{Deep, Picture, SampleRange},
    room, too_few, within,
};

/// Decodes a file that begins as a PNM file does.
pub(super) fn decode(file: &[u8], max_pixels: u64) -> Result<Picture, PictureError> {
    let (kind, rest) = match file {
        [b'P', kind @ b'1'..=b'6', rest @ ..] => (*kind - b'0', rest),
        _ => return Err(broken("it has no PNM header")),
    };
    let mut words = Words(rest);
    let width = words.number()?;
    let height = words.number()?;
    within(width, height, max_pixels)?;
    let most = match kind {
        1 | 4 => 1,
        _ => words.number()?,
    };
    if !(1..=65_535).contains(&most) {
        return Err(broken(format!(
            "{most} as its largest value makes no sense"
        )));
    }
    let channels = if matches!(kind, 3 | 6) { 3 } else { 1 };
    let row = width as usize * channels;
    let count = row * height as usize;
    // Binary data begin after one space; text may begin at once.
    let data = words.0.get(usize::from(kind > 3)..).unwrap_or_default();
    let least = match kind {
        1 => count,
        4 => row.div_ceil(8) * height as usize,
        // The last number needs no space after it.
        2 | 3 => (2 * count).saturating_sub(1),
        _ if most > 255 => 2 * count,
        _ => count,
    };
    if data.len() < least {
        return Err(too_few(width, height));
    }
    let mut samples = room(count, 0_u16)?;
    match kind {
        1 => Words(data).bits(&mut samples)?,
        2 | 3 => {
            let mut words = Words(data);
            for sample in &mut samples {
                *sample = words.number()?.try_into().unwrap_or(u16::MAX);
            }
        }
        4 => {
            let rows = samples.chunks_exact_mut(row.max(1));
            for (row, bytes) in rows.zip(data.chunks_exact(row.div_ceil(8).max(1))) {
                for (x, sample) in row.iter_mut().enumerate() {
                    *sample = u16::from(bytes[x / 8] >> (7 - x % 8) & 1 == 0);
                }
            }
        }
        _ if most > 255 => {
            for (sample, &bytes) in samples.iter_mut().zip(data.as_chunks().0) {
                *sample = u16::from_be_bytes(bytes);
            }
        }
        _ => {
            for (sample, &byte) in samples.iter_mut().zip(data) {
                *sample = u16::from(byte);
            }
        }
    }
    // In text this is the only check; binary data are truncated, as in Pillow.
    if matches!(kind, 2 | 3) && samples.iter().any(|&sample| u32::from(sample) > most) {
        return Err(broken(format!(
            "a sample is above {most}, its largest value"
        )));
    }
    if most > 255 {
        let range = SampleRange {
            low: 0.0,
            high: most as f32,
        };
        let samples = samples.into_iter().map(f32::from).collect();
        let deep = Deep {
            width,
            height,
            channels,
            samples,
            range,
        };
        return Ok(Picture::Deep(deep.checked()?));
    }
    // As Python rounds.
    let byte = |sample: u16| {
        let share = f64::from(sample) / f64::from(most);
        (share * 255.0).round_ties_even().min(255.0) as u8
    };
    let bytes: Vec<u8> = (0..=255).map(byte).collect();
    let bytes = |sample: u16| bytes[usize::from(sample.min(255))];
    let pixels = match channels {
        1 => samples.iter().flat_map(|&grey| [bytes(grey); 3]).collect(),
        _ => samples.iter().map(|&sample| bytes(sample)).collect(),
    };
    Ok(Picture::Bytes(checked(width, height, pixels)?))
}

/// The numbers of a header or of a picture in text, with comments between them.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    /// Leaves out white space and comments, which end with their line.
    fn skip(&mut self) {
        while let Some((&byte, rest)) = self.0.split_first() {
            match byte {
                b'#' => {
                    let end = self.0.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                    self.0 = &self.0[end.unwrap_or(self.0.len())..];
                }
                _ if byte.is_ascii_whitespace() || byte == 0x0b => self.0 = rest,
                _ => break,
            }
        }
    }

    fn number(&mut self) -> Result<u32, PictureError> {
        self.skip();
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit());
        let digits = digits.count();
        let (number, rest) = self.0.split_at(digits);
        self.0 = rest;
        let number = std::str::from_utf8(number).unwrap_or_default();
        number
            .parse()
            .map_err(|_| broken("a number is missing or too large"))
    }

    /// Bits in text, which need no space between them; 1 is black.
    fn bits(&mut self, into: &mut [u16]) -> Result<(), PictureError> {
        for sample in into {
            self.skip();
            *sample = match self.0.split_off_first() {
                Some(b'0') => 1,
                Some(b'1') => 0,
                _ => return Err(broken("a bit is missing or neither 0 nor 1")),
            };
        }
        Ok(())
    }
}

//! DICOM: one frame of grey, not compressed, with or without explicit types.
//!
//! The reader is our own because it needs only a dozen of the standard's elements, and does not
//! trust the lengths that a file claims.

use super::{
    PictureError, broken,
    deep::{Deep, Picture, SampleRange},
    too_few, within,
};

/// Where the elements begin.
const PREAMBLE: usize = 128;
const MAGIC: &[u8; 4] = b"DICM";
const UNDEFINED: u32 = u32::MAX;

/// Whether a file begins as DICOM files do.
pub(super) fn is_dicom(file: &[u8]) -> bool {
    file.get(PREAMBLE..)
        .is_some_and(|rest| rest.starts_with(MAGIC))
}

/// Decodes a file that begins as a DICOM file does.
pub(super) fn decode(file: &[u8], max_pixels: u64) -> Result<Picture, PictureError> {
    let mut elements = Elements {
        rest: file.get(PREAMBLE + MAGIC.len()..).unwrap_or_default(),
        is_explicit: true,
        depth: 0,
        untyped: None,
    };
    let mut found = Attributes::default();
    while let Some((tag, value)) = elements.next()? {
        found.take(tag, value);
        // The rest of the file is in the syntax that the first group names.
        if elements.group() != Some(2) && tag >> 16 == 2 {
            elements.is_explicit = found.is_explicit()?;
        }
        if found.pixels.is_some() {
            break;
        }
    }
    found.picture(max_pixels)
}

/// The elements that a picture depends on, as in the file.
#[derive(Default)]
struct Attributes<'a> {
    syntax: Option<&'a [u8]>,
    samples: Option<&'a [u8]>,
    photometric: Option<&'a [u8]>,
    frames: Option<&'a [u8]>,
    rows: Option<&'a [u8]>,
    columns: Option<&'a [u8]>,
    allocated: Option<&'a [u8]>,
    stored: Option<&'a [u8]>,
    high_bit: Option<&'a [u8]>,
    signed: Option<&'a [u8]>,
    centre: Option<&'a [u8]>,
    width: Option<&'a [u8]>,
    window: Option<&'a [u8]>,
    intercept: Option<&'a [u8]>,
    slope: Option<&'a [u8]>,
    pixels: Option<&'a [u8]>,
}

impl<'a> Attributes<'a> {
    fn take(&mut self, tag: u32, value: &'a [u8]) {
        let place = match tag {
            0x0002_0010 => &mut self.syntax,
            0x0028_0002 => &mut self.samples,
            0x0028_0004 => &mut self.photometric,
            0x0028_0008 => &mut self.frames,
            0x0028_0010 => &mut self.rows,
            0x0028_0011 => &mut self.columns,
            0x0028_0100 => &mut self.allocated,
            0x0028_0101 => &mut self.stored,
            0x0028_0102 => &mut self.high_bit,
            0x0028_0103 => &mut self.signed,
            0x0028_1050 => &mut self.centre,
            0x0028_1051 => &mut self.width,
            0x0028_1052 => &mut self.intercept,
            0x0028_1053 => &mut self.slope,
            0x0028_1056 => &mut self.window,
            0x7fe0_0010 => &mut self.pixels,
            _ => return,
        };
        *place = Some(value);
    }

    /// Whether elements have their types beside them.
    fn is_explicit(&self) -> Result<bool, PictureError> {
        match text(self.syntax) {
            Some("1.2.840.10008.1.2") => Ok(false),
            Some("1.2.840.10008.1.2.1") => Ok(true),
            Some(other) => Err(unsupported(match compression(other) {
                Some(method) => format!(
                    "whose pixels are compressed by {method} (`gdcmconv --raw IN OUT` writes one whose are not)"
                ),
                None => format!("of the transfer syntax {other}"),
            })),
            None => Err(broken("it names no transfer syntax")),
        }
    }

    fn picture(&self, max_pixels: u64) -> Result<Picture, PictureError> {
        let whole = |value: Option<&[u8]>, name: &str| {
            let bytes = value.and_then(|value| value.first_chunk());
            let bytes = bytes.ok_or_else(|| broken(format!("it has no {name}")))?;
            Ok::<u32, PictureError>(u32::from(u16::from_le_bytes(*bytes)))
        };
        let is_inverted = match text(self.photometric) {
            Some("MONOCHROME1") => true,
            Some("MONOCHROME2") => false,
            Some(other) => return Err(unsupported(format!("in {other}"))),
            None => return Err(broken("it has no photometric interpretation")),
        };
        if self.samples.is_some() && whole(self.samples, "samples per pixel")? != 1 {
            return Err(unsupported("of several samples a pixel".to_owned()));
        }
        if text(self.frames).is_some_and(|frames| frames != "1") {
            return Err(unsupported("of several frames".to_owned()));
        }
        let (height, width) = (whole(self.rows, "rows")?, whole(self.columns, "columns")?);
        within(width, height, max_pixels)?;
        let allocated = whole(self.allocated, "bits allocated")?;
        let stored = match self.stored {
            Some(_) => whole(self.stored, "bits stored")?,
            None => allocated,
        };
        let high_bit = match self.high_bit {
            Some(_) => whole(self.high_bit, "high bit")?,
            None => stored.saturating_sub(1),
        };
        if !matches!(allocated, 8 | 16) {
            return Err(unsupported(format!("of {allocated} bits a sample")));
        }
        if !(1..=allocated).contains(&stored) || high_bit >= allocated || high_bit + 1 < stored {
            return Err(broken("its bits stored make no sense"));
        }
        let is_signed = match self.signed {
            Some(_) => whole(self.signed, "pixel representation")? == 1,
            None => false,
        };
        let pixels = self.pixels.ok_or_else(|| broken("it has no pixels"))?;
        let area = width as usize * height as usize;
        if pixels.len() < area * allocated as usize / 8 {
            return Err(too_few(width, height));
        }

        let (slope, intercept) = (
            number(self.slope)?.unwrap_or(1.0),
            number(self.intercept)?.unwrap_or(0.0),
        );
        let mask = ((1_u32 << stored) - 1) as u16;
        let value = |word: u16| {
            let bits = word >> (high_bit + 1 - stored) & mask;
            let value = match is_signed && bits >> (stored - 1) == 1 {
                true => i32::from(bits) - (1 << stored),
                false => i32::from(bits),
            };
            (f64::from(value) * slope + intercept) as f32
        };
        let samples = match allocated {
            8 => pixels[..area]
                .iter()
                .map(|&byte| value(byte.into()))
                .collect(),
            _ => {
                let (words, _) = pixels[..2 * area].as_chunks();
                words
                    .iter()
                    .map(|&word| value(u16::from_le_bytes(word)))
                    .collect()
            }
        };
        let range = match (number(self.centre)?, number(self.width)?) {
            (Some(centre), Some(width)) => {
                // Among the standard's functions, LINEAR is defined between the centres of its steps.
                let (centre, width) = match text(self.window) {
                    Some("LINEAR_EXACT") => (centre, width),
                    _ => (centre - 0.5, (width - 1.0).max(1e-3)),
                };
                [centre - width / 2.0, centre + width / 2.0]
            }
            _ => {
                let most = f64::from(1_u32 << stored);
                let ends = match is_signed {
                    true => [-most / 2.0, most / 2.0 - 1.0],
                    false => [0.0, most - 1.0],
                };
                let ends = ends.map(|end| end * slope + intercept);
                [ends[0].min(ends[1]), ends[0].max(ends[1])]
            }
        };
        let [low, high] = range.map(|end| end as f32);
        let deep = Deep {
            width,
            height,
            channels: 1,
            samples,
            range: match is_inverted {
                true => SampleRange {
                    low: high,
                    high: low,
                },
                false => SampleRange { low, high },
            },
        };
        Ok(Picture::Deep(deep.checked()?))
    }
}

fn unsupported(what: String) -> PictureError {
    PictureError::Unsupported(format!("a DICOM file {what}"))
}

/// How a transfer syntax compresses pixels, if it does.
fn compression(syntax: &str) -> Option<&'static str> {
    let number = syntax.strip_prefix("1.2.840.10008.1.2.")?;
    match (number, number.strip_prefix("4.")) {
        ("5", _) => Some("RLE"),
        (_, Some("50" | "51")) => Some("JPEG"),
        (_, Some("57" | "70")) => Some("lossless JPEG"),
        (_, Some("80" | "81")) => Some("JPEG-LS"),
        (_, Some("90" | "91")) => Some("JPEG 2000"),
        (_, Some("201" | "202" | "203")) => Some("high-throughput JPEG 2000"),
        _ => None,
    }
}

/// Text without what fills it up.
fn text(value: Option<&[u8]>) -> Option<&str> {
    let text = std::str::from_utf8(value?).ok()?;
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!text.is_empty()).then_some(text)
}

/// The first of several numbers in text.
fn number(value: Option<&[u8]>) -> Result<Option<f64>, PictureError> {
    let Some(text) = text(value) else {
        return Ok(None);
    };
    let first = text.split('\\').next().unwrap_or_default().trim();
    match first.parse() {
        Ok(number) if f64::is_finite(number) => Ok(Some(number)),
        _ => Err(broken(format!("{first} is not a number"))),
    }
}

/// The elements of a file, one after another. Those within sequences are left out.
struct Elements<'a> {
    rest: &'a [u8],
    is_explicit: bool,
    /// The depth in sequences and items whose ends are marked.
    depth: usize,
    /// The depth from which on elements have no types: in a sequence of unknown type (PS3.5 6.2.2).
    untyped: Option<usize>,
}

impl<'a> Elements<'a> {
    /// The next element's group.
    fn group(&self) -> Option<u16> {
        self.rest
            .first_chunk()
            .map(|bytes| u16::from_le_bytes(*bytes))
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], PictureError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| broken("it is cut short"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn short(&mut self) -> Result<u16, PictureError> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn long(&mut self) -> Result<u32, PictureError> {
        let (low, high) = (self.short()?, self.short()?);
        Ok(u32::from(high) << 16 | u32::from(low))
    }

    /// The next element's tag and value.
    fn next(&mut self) -> Result<Option<(u32, &'a [u8])>, PictureError> {
        while !self.rest.is_empty() {
            let tag = u32::from(self.short()?) << 16 | u32::from(self.short()?);
            // Items of sequences, and what ends them, have no type.
            if tag >> 16 == 0xfffe {
                let length = self.long()?;
                match tag {
                    0xfffe_e000 if length == UNDEFINED => self.depth += 1,
                    0xfffe_e000 => drop(self.bytes(length as usize)?),
                    _ => {
                        self.depth = self.depth.saturating_sub(1);
                        self.untyped = self.untyped.filter(|&depth| depth < self.depth);
                    }
                }
                continue;
            }
            let is_explicit = self.is_explicit && self.untyped.is_none() || tag >> 16 == 2;
            let mut is_unknown = false;
            let length = if is_explicit {
                let kind = self.bytes(2)?;
                is_unknown = kind == b"UN";
                match kind {
                    b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC"
                    | b"UN" | b"UR" | b"UT" | b"UV" => {
                        self.short()?;
                        self.long()?
                    }
                    _ => self.short()?.into(),
                }
            } else {
                self.long()?
            };
            if length == UNDEFINED {
                if tag == 0x7fe0_0010 {
                    return Err(unsupported("whose pixels are compressed".to_owned()));
                }
                if is_unknown {
                    self.untyped = Some(self.depth);
                }
                self.depth += 1;
                continue;
            }
            let value = self.bytes(length as usize)?;
            if self.depth == 0 {
                return Ok(Some((tag, value)));
            }
        }
        Ok(None)
    }
}

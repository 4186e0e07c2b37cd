//! TIFF: its first picture, of up to 32 bits a sample, whole numbers or floats.

use std::io::Cursor;

use tiff::{
    ColorType, TiffError,
    decoder::{ChunkType, Decoder, DecodingResult, Limits},
    tags::Tag,
};

use super::{
    PictureError, Rgb,
    bmp::unpack,
    broken, checked,
    deep::{Deep, Picture, SampleRange},
    room, too_few, within,
};

/// A sample has at most this many bytes.
const MOST_BYTES: usize = 8;

/// LZW expands most: a code of 12 bits becomes up to 4096 bytes, so a byte becomes this many.
const MOST_EXPANDED: usize = 2731;

/// In the tag of extra samples: alpha, by which colours are multiplied.
const ASSOCIATED_ALPHA: u16 = 1;

/// Decodes a file that begins as a TIFF does.
pub(super) fn decode(file: &[u8], max_pixels: u64) -> Result<Picture, PictureError> {
    if !Directory::of(file).is_plausible() {
        return Err(broken("its tags claim more values than it has"));
    }
    let Plain {
        copy,
        colours,
        is_inverted,
    } = Plain::of(file);
    let mut decoder = Decoder::new(Cursor::new(copy.as_deref().unwrap_or(file))).map_err(failed)?;
    let (width, height) = decoder.dimensions().map_err(failed)?;
    within(width, height, max_pixels)?;
    let area = width as usize * height as usize;
    // Five samples a pixel at most: CMYK and alpha.
    let most = (5 * MOST_BYTES).saturating_mul(area);
    let mut limits = Limits::default();
    limits.decoding_buffer_size = most;
    limits.intermediate_buffer_size = most.max(file.len());
    let mut decoder = decoder.with_limits(limits);
    let colour = decoder.colortype().map_err(failed)?;
    let layout = decoder.image_buffer_layout().map_err(failed)?;
    if layout.complete_len > most.min(MOST_EXPANDED.saturating_mul(file.len())) {
        return Err(too_few(width, height));
    }
    let (listed, used) = match colour {
        ColorType::Gray(_) => (1, 1),
        ColorType::Multiband { num_samples, .. } => (usize::from(num_samples), 1),
        ColorType::RGB(_) => (3, 3),
        ColorType::RGBA(_) => (4, 3),
        ColorType::CMYK(8) => (4, 4),
        ColorType::CMYKA(8) => (5, 4),
        other => {
            return Err(PictureError::Unsupported(format!(
                "a TIFF of the colour type {other:?}"
            )));
        }
    };
    let is_planar = layout.planes > 1;
    // The decoder panics.
    if is_planar && decoder.get_chunk_type() == ChunkType::Tile {
        return Err(PictureError::Unsupported(
            "a TIFF whose colours are apart (planar) and in tiles".to_owned(),
        ));
    }
    let mut samples = DecodingResult::U8(Vec::new());
    decoder.read_image_to_buffer(&mut samples).map_err(failed)?;
    if matches!(colour, ColorType::RGBA(_)) && !is_planar {
        let extra = decoder.get_tag_u16_vec(Tag::ExtraSamples);
        if extra.is_ok_and(|extra| extra.first() == Some(&ASSOCIATED_ALPHA)) {
            divide_by_alpha(&mut samples);
        }
    }

    let gather = Gather {
        area,
        listed,
        used,
        is_planar,
    };
    let deep = |samples: Result<Vec<f32>, PictureError>, low: f32, high: f32| {
        let deep = Deep {
            width,
            height,
            channels: used,
            samples: samples?,
            range: match is_inverted {
                false => SampleRange { low, high },
                true => SampleRange {
                    low: high,
                    high: low,
                },
            },
        };
        Ok(Picture::Deep(deep.checked()?))
    };
    // Signed samples and those of 32 bits, to the precision of f32.
    match samples {
        DecodingResult::U8(samples) => {
            let bits = u16::from(colour.bit_depth());
            let samples = match bits {
                8 => gather.of(&samples, |byte| byte)?,
                1 | 2 | 4 if listed == 1 => {
                    let row = (width as usize * usize::from(bits)).div_ceil(8);
                    let mut into = room(area, 0)?;
                    let rows = into.chunks_exact_mut(width.max(1) as usize);
                    for (into, row) in rows.zip(samples.chunks_exact(row.max(1))) {
                        unpack(row, bits, into);
                    }
                    if colours.is_none() {
                        let most = (1_u16 << bits) - 1;
                        into.iter_mut()
                            .for_each(|sample| *sample = (u16::from(*sample) * 255 / most) as u8);
                    }
                    into
                }
                _ => return Err(PictureError::Unsupported(format!("a TIFF of {bits} bits"))),
            };
            Ok(Picture::Bytes(rgb(width, height, used, &samples, colours)?))
        }
        _ if used == 4 || colours.is_some() => Err(PictureError::Unsupported(
            "a TIFF in CMYK or with a palette of more than 8 bits".to_owned(),
        )),
        DecodingResult::U16(samples) => deep(gather.of(&samples, f32::from), 0.0, 65_535.0),
        DecodingResult::I16(samples) => deep(gather.of(&samples, f32::from), -32_768.0, 32_767.0),
        DecodingResult::U32(samples) => deep(
            gather.of(&samples, |sample| sample as f32),
            0.0,
            u32::MAX as f32,
        ),
        DecodingResult::I32(samples) => deep(
            gather.of(&samples, |sample| sample as f32),
            i32::MIN as f32,
            i32::MAX as f32,
        ),
        DecodingResult::F16(samples) => deep(gather.of(&samples, f32::from), 0.0, 1.0),
        DecodingResult::F32(samples) => deep(gather.of(&samples, |sample| sample), 0.0, 1.0),
        DecodingResult::F64(samples) => deep(gather.of(&samples, |sample| sample as f32), 0.0, 1.0),
        DecodingResult::I8(_) => Err(PictureError::Unsupported(
            "a TIFF of signed samples of 8 bits".to_owned(),
        )),
        _ => Err(PictureError::Unsupported(format!(
            "a TIFF of {} bits a sample",
            colour.bit_depth()
        ))),
    }
}

/// Undoes the multiplication of colours by alpha, as Pillow does: without alpha they are black.
fn divide_by_alpha(samples: &mut DecodingResult) {
    let divided = |value: u32, alpha: u32, most: u32| {
        let value = (value * most).checked_div(alpha);
        value.map_or(0, |value| value.min(most))
    };
    match samples {
        DecodingResult::U8(samples) => {
            for [colours @ .., alpha] in samples.as_chunks_mut::<4>().0 {
                for colour in colours {
                    *colour = divided((*colour).into(), (*alpha).into(), 255) as u8;
                }
            }
        }
        DecodingResult::U16(samples) => {
            for [colours @ .., alpha] in samples.as_chunks_mut::<4>().0 {
                for colour in colours {
                    *colour = divided((*colour).into(), (*alpha).into(), 65_535) as u16;
                }
            }
        }
        _ => {}
    }
}

/// Whether a file that begins as a TIFF does has more than 8 bits a sample.
fn is_deep(file: &[u8]) -> bool {
    if !Directory::of(file).is_plausible() {
        return false;
    }
    let colour = Decoder::new(Cursor::new(file)).and_then(|mut decoder| decoder.colortype());
    colour.is_ok_and(|colour| colour.bit_depth() > 8)
}

fn failed(error: TiffError) -> PictureError {
    match error {
        TiffError::UnsupportedError(what) => {
            PictureError::Unsupported(format!("a kind of TIFF ({what})"))
        }
        other => broken(other.to_string()),
    }
}

/// The layout of the samples that pixels need among those of the file.
struct Gather {
    area: usize,
    /// Samples of a pixel in the file, and how many of them are needed.
    listed: usize,
    used: usize,
    /// Whether all first samples come before all second ones.
    is_planar: bool,
}

impl Gather {
    /// The samples that are needed, pixel by pixel.
    fn of<T: Copy, U>(
        &self,
        samples: &[T],
        as_it: impl Fn(T) -> U,
    ) -> Result<Vec<U>, PictureError> {
        let &Self {
            area,
            listed,
            used,
            is_planar,
        } = self;
        if samples.len() < area * if is_planar { used } else { listed } {
            return Err(broken("samples are missing"));
        }
        let mut into = Vec::new();
        into.try_reserve_exact(area * used)
            .map_err(|_| broken("there is not enough memory for it"))?;
        if is_planar {
            into.extend((0..area * used).map(|at| as_it(samples[at % used * area + at / used])));
        } else {
            let pixels = samples.chunks_exact(listed.max(1)).take(area);
            into.extend(
                pixels
                    .flat_map(|pixel| &pixel[..used])
                    .map(|&sample| as_it(sample)),
            );
        }
        Ok(into)
    }
}

/// The pixels of samples of 8 bits: grey or indices, RGB, or CMYK.
fn rgb(
    width: u32,
    height: u32,
    used: usize,
    samples: &[u8],
    colours: Option<Vec<[u8; 3]>>,
) -> Result<Rgb, PictureError> {
    let pixels = match (used, colours) {
        (1, Some(colours)) => samples
            .iter()
            .flat_map(|&at| colours.get(usize::from(at)).copied().unwrap_or_default())
            .collect(),
        (1, None) => samples.iter().flat_map(|&grey| [grey; 3]).collect(),
        (3, _) => samples.to_vec(),
        _ => {
            let (pixels, _) = samples.as_chunks();
            pixels.iter().flat_map(|&pixel| of_inks(pixel)).collect()
        }
    };
    checked(width, height, pixels)
}

/// RGB from CMYK, as Pillow computes it.
fn of_inks([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let light = 255 - u32::from(k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * light + 128;
        (light - (((product >> 8) + product) >> 8).min(light)) as u8
    })
}

/// The tags of a file's first picture, as they are listed.
struct Directory<'a> {
    file: &'a [u8],
    is_little: bool,
    is_big: bool,
}

/// A tag: which one, its type, how many values it has, and where these, or their offset, are.
struct Entry {
    tag: u64,
    kind: u64,
    count: u64,
    at: usize,
}

impl<'a> Directory<'a> {
    fn of(file: &'a [u8]) -> Self {
        let is_little = file.starts_with(b"II");
        let version = if is_little { file.get(2) } else { file.get(3) };
        Self {
            file,
            is_little,
            is_big: version == Some(&43),
        }
    }

    fn number(&self, at: usize, bytes: usize) -> Option<u64> {
        let bytes = self.file.get(at..at.checked_add(bytes)?)?;
        let number = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        Some(if self.is_little {
            bytes.iter().rev().fold(0, number)
        } else {
            bytes.iter().fold(0, number)
        })
    }

    /// The entries that are in the file.
    fn entries(&self) -> impl Iterator<Item = Entry> {
        // Sizes of an offset or count, of the number of entries, and of an entry.
        let (word, listed, size) = if self.is_big { (8, 8, 20) } else { (4, 2, 12) };
        let place = self.number(if self.is_big { 8 } else { 4 }, word);
        let place = usize::try_from(place.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let count = self.number(place, listed).unwrap_or(0);
        let first = place.saturating_add(listed);
        (0..count).map_while(move |entry| {
            let at = usize::try_from(entry).ok()?.checked_mul(size)?;
            let at = at.checked_add(first)?;
            Some(Entry {
                tag: self.number(at, 2)?,
                kind: self.number(at + 2, 2)?,
                count: self.number(at + 4, word)?,
                at: at + 4 + word,
            })
        })
    }

    /// What samples mean, and where the lowest byte of that number is.
    fn photometric(&self) -> Option<(u64, usize)> {
        const PHOTOMETRIC: u64 = 262;
        let entry = self.entries().find(|entry| entry.tag == PHOTOMETRIC)?;
        // A short, or a long.
        let bytes = if entry.kind == 3 { 2 } else { 4 };
        let lowest = if self.is_little { 0 } else { bytes - 1 };
        Some((self.number(entry.at, bytes)?, entry.at + lowest))
    }

    /// Whether the file is long enough for all values that its tags claim to have. The decoder takes
    /// memory for them first.
    fn is_plausible(&self) -> bool {
        self.entries().all(|entry| {
            let bytes = match entry.kind {
                3 | 8 => 2,
                4 | 9 | 11 | 13 => 4,
                5 | 10 | 12 | 16..=18 => 8,
                _ => 1,
            };
            entry.count.saturating_mul(bytes) <= self.file.len() as u64
        })
    }
}

/// A file for the decoder.
#[derive(Default)]
struct Plain {
    /// A copy that says that its samples are grey and the smallest is black; none if the file itself will do.
    copy: Option<Vec<u8>>,
    /// The colours of a palette, whose indices are decoded as grey. The decoder cannot read palettes.
    colours: Option<Vec<[u8; 3]>>,
    /// Whether the smallest sample is white, of more than 8 bits. The decoder would turn them round, but they
    /// are needed as they are in the file.
    is_inverted: bool,
}

impl Plain {
    fn of(file: &[u8]) -> Self {
        const WHITE_IS_ZERO: u64 = 0;
        const BLACK_IS_ZERO: u8 = 1;
        const PALETTE: u64 = 3;
        let (is_inverted, at) = match Directory::of(file).photometric() {
            Some((PALETTE, at)) => (false, at),
            Some((WHITE_IS_ZERO, at)) if is_deep(file) => (true, at),
            _ => return Self::default(),
        };
        let mut copy = file.to_vec();
        if let Some(lowest) = copy.get_mut(at) {
            *lowest = BLACK_IS_ZERO;
        }
        let colours = || {
            let map = Decoder::new(Cursor::new(&copy))?.get_tag_u16_vec(Tag::ColorMap)?;
            let count = map.len() / 3;
            let colour =
                |at: usize| [0, 1, 2].map(|channel| (map[channel * count + at] >> 8) as u8);
            Ok::<_, TiffError>((0..count).map(colour).collect())
        };
        let colours = (!is_inverted).then(|| colours().unwrap_or_default());
        Self {
            copy: Some(copy),
            colours,
            is_inverted,
        }
    }
}

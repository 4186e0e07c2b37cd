//! A JPEG file's headers: its segments up to the data of each scan.
//!
//! Like libjpeg and therefore Pillow, this skips bytes that stand between segments.

use std::ops::RangeInclusive;

use super::{Broken, Kind, PictureError, huffman::HuffmanTable, standard};
use crate::data::decode::within;

/// The order in which the coefficients of a picture are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// Each block at once.
    Sequential,
    /// In scans, each refining the picture.
    Progressive,
}

/// The colour space of the components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Grey,
    Rgb,
    YCbCr,
    /// Inverted, as written by Adobe.
    Cmyk,
    /// The same, with the first three converted to YCbCr.
    Ycck,
}

/// One of the planes that make up a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Horizontal and vertical sampling factors.
    pub(super) h: usize,
    pub(super) v: usize,
    /// Index of the quantization table.
    pub(super) quantization: usize,
}

/// The frame header, which holds for all scans.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) process: Process,
    pub(super) width: usize,
    pub(super) height: usize,
    /// One, three or four.
    pub(super) components: Vec<Component>,
    /// The largest `h` and `v`.
    pub(super) most: (usize, usize),
}

/// A component in a scan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) component: usize,
    /// Indices of the Huffman tables.
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// A scan: some coefficients of some components.
pub(super) struct Scan<'a> {
    pub(super) parts: Vec<Part>,
    /// Coefficients, in the order of the file.
    pub(super) band: RangeInclusive<usize>,
    /// The scan refines the bit below this one; zero in the first scan of these coefficients.
    pub(super) high: u32,
    /// The lowest bit that the scan contains.
    pub(super) low: u32,
    /// Its entropy-coded data, with restart markers.
    pub(super) data: &'a [u8],
}

/// Reads segments one after another and keeps the tables in force.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    pub(super) frame: Option<Frame>,
    /// 8-bit or 16-bit numbers, in natural order.
    pub(super) quantization: [Option<[u16; 64]>; 4],
    pub(super) dc: [Option<HuffmanTable>; 4],
    pub(super) ac: [Option<HuffmanTable>; 4],
    /// MCUs between restart markers; zero if there are none.
    pub(super) restart: usize,
    is_jfif: bool,
    adobe: Option<u8>,
    max_pixels: u64,
}

impl<'a> Reader<'a> {
    /// Begins after the marker that starts a file.
    pub(super) fn new(file: &'a [u8], max_pixels: u64) -> Self {
        Self {
            rest: &file[2..],
            frame: None,
            quantization: [None; 4],
            dc: [const { None }; 4],
            ac: [const { None }; 4],
            restart: 0,
            is_jfif: false,
            adobe: None,
            max_pixels,
        }
    }

    /// The next scan; `None` at the end of the picture or of the file.
    pub(super) fn scan(&mut self) -> Result<Option<Scan<'a>>, PictureError> {
        loop {
            let Some(marker) = self.marker() else {
                return Ok(None);
            };
            match marker {
                // The end of the picture.
                0xd9 => return Ok(None),
                // These have no contents. A restart marker may end a scan.
                0x01 | 0xd0..=0xd7 => continue,
                0xd8 => return Err(Broken::Second.into()),
                _ => {}
            }
            let (contents, behind) = segment(self.rest)?;
            self.rest = behind;
            match marker {
                0xc4 => self.huffman_tables(contents)?,
                0xdb => self.quantization_tables(contents)?,
                0xdd => {
                    let &[high, low] = contents else {
                        return Err(Broken::Segment("the restart interval").into());
                    };
                    self.restart = u16::from_be_bytes([high, low]).into();
                }
                0xc0..=0xc2 => self.frame(marker, contents)?,
                0xc3 => return Err(Kind::Lossless.into()),
                0xc5..=0xc7 | 0xcd..=0xcf | 0xde | 0xdf => return Err(Kind::Hierarchical.into()),
                0xc9 | 0xca | 0xcc => return Err(Kind::Arithmetic.into()),
                0xcb => return Err(Kind::Lossless.into()),
                0xf7 | 0xf8 => return Err(Kind::JpegLs.into()),
                0xe0 => self.is_jfif |= contents.len() >= 14 && contents.starts_with(b"JFIF\0"),
                0xee if contents.starts_with(b"Adobe") => {
                    self.adobe = contents.get(11).copied().or(self.adobe);
                }
                0xda => return self.start(contents).map(Some),
                _ => {}
            }
        }
    }

    /// The code of the next marker.
    fn marker(&mut self) -> Option<u8> {
        loop {
            let at = self.rest.iter().position(|&byte| byte == 0xff)?;
            let filled = self.rest[at..].iter().position(|&byte| byte != 0xff)?;
            let (&code, behind) = self.rest[at + filled..].split_first()?;
            self.rest = behind;
            if code != 0 {
                return Some(code);
            }
        }
    }

    /// The number of bytes not read yet.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn frame(&mut self, marker: u8, contents: &[u8]) -> Result<(), PictureError> {
        const WHAT: Broken = Broken::Segment("the frame header");
        if self.frame.is_some() {
            return Err(Broken::Second.into());
        }
        let &[precision, h1, h0, w1, w0, count, ref listed @ ..] = contents else {
            return Err(WHAT.into());
        };
        let (width, height) = (
            u16::from_be_bytes([w1, w0]).into(),
            u16::from_be_bytes([h1, h0]).into(),
        );
        match precision {
            8 => {}
            12 => return Err(Kind::TwelveBits.into()),
            _ => return Err(WHAT.into()),
        }
        if height == 0 {
            return Err(Kind::NoHeight.into());
        }
        if width == 0 || listed.len() != 3 * usize::from(count) {
            return Err(WHAT.into());
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(Kind::Components(count).into());
        }
        within(width, height, self.max_pixels)?;
        let (listed, _) = listed.as_chunks::<3>();
        let components = listed.iter().map(|&[id, sampling, table]| {
            let (h, v) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            let quantization = usize::from(table);
            let fits = (1..=4).contains(&h) && (1..=4).contains(&v) && quantization < 4;
            let component = Component {
                id,
                h,
                v,
                quantization,
            };
            fits.then_some(component).ok_or(WHAT)
        });
        let components = components.collect::<Result<Vec<_>, _>>()?;
        let most = components
            .iter()
            .fold((1, 1), |(h, v), part| (h.max(part.h), v.max(part.v)));
        if components
            .iter()
            .any(|part| most.0 % part.h != 0 || most.1 % part.v != 0)
        {
            return Err(Kind::Fractions.into());
        }
        self.frame = Some(Frame {
            process: match marker {
                0xc2 => Process::Progressive,
                _ => Process::Sequential,
            },
            width: width as usize,
            height: height as usize,
            components,
            most,
        });
        Ok(())
    }

    fn quantization_tables(&mut self, mut contents: &[u8]) -> Result<(), Broken> {
        const WHAT: Broken = Broken::Segment("a quantization table");
        while let Some((&first, rest)) = contents.split_first() {
            let place = usize::from(first & 15);
            let bytes = if first >> 4 == 0 { 1 } else { 2 };
            let (numbers, behind) = rest.split_at_checked(64 * bytes).ok_or(WHAT)?;
            let mut table = [0; 64];
            for (number, natural) in numbers.chunks_exact(bytes).zip(super::block::NATURAL) {
                let number = number
                    .iter()
                    .fold(0, |all, &byte| all << 8 | u16::from(byte));
                table[usize::from(natural)] = number;
            }
            *self.quantization.get_mut(place).ok_or(WHAT)? = Some(table);
            contents = behind;
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut contents: &[u8]) -> Result<(), Broken> {
        while let Some((&first, rest)) = contents.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(Broken::Tables)?;
            let total = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, behind) = rest.split_at_checked(total).ok_or(Broken::Tables)?;
            let table = HuffmanTable::new(counts, symbols)?;
            let (tables, place) = match first >> 4 {
                0 if table.is_below(15) => (&mut self.dc, first & 15),
                1 => (&mut self.ac, first & 15),
                _ => return Err(Broken::Tables),
            };
            *tables.get_mut(usize::from(place)).ok_or(Broken::Tables)? = Some(table);
            contents = behind;
        }
        Ok(())
    }

    /// Adds the standard tables where the file leaves them out.
    fn add_standard_tables(&mut self) -> Result<(), Broken> {
        let (dc, ac) = (self.dc.clone(), self.ac.clone());
        self.huffman_tables(standard::SEGMENT)?;
        for (standard, own) in self
            .dc
            .iter_mut()
            .chain(&mut self.ac)
            .zip(dc.into_iter().chain(ac))
        {
            *standard = own.or(standard.take());
        }
        Ok(())
    }

    fn start(&mut self, contents: &[u8]) -> Result<Scan<'a>, PictureError> {
        const WHAT: Broken = Broken::Segment("a scan header");
        let frame = self.frame.as_ref().ok_or(WHAT)?;
        let (&count, listed) = contents.split_first().ok_or(WHAT)?;
        let (listed, rest) = listed
            .split_at_checked(2 * usize::from(count))
            .ok_or(WHAT)?;
        let &[first, last, bits] = rest else {
            return Err(WHAT.into());
        };
        let (listed, _) = listed.as_chunks::<2>();
        let mut parts: Vec<Part> = Vec::with_capacity(4);
        for &[id, tables] in listed {
            // Where two components have the same id, the first one is meant first, as in libjpeg.
            let component = (0..frame.components.len())
                .filter(|&at| frame.components[at].id == id)
                .find(|&at| parts.iter().all(|part| part.component != at));
            parts.push(Part {
                component: component.ok_or(WHAT)?,
                dc: usize::from(tables >> 4),
                ac: usize::from(tables & 15),
            });
        }
        let (first, last) = (usize::from(first), usize::from(last));
        let (high, low) = (u32::from(bits >> 4), u32::from(bits & 15));
        let fits = match frame.process {
            // These fields have no meaning in a sequential file, and some files have them wrong.
            Process::Sequential => true,
            Process::Progressive => {
                let band = match first {
                    0 => last == 0,
                    _ => first <= last && last < 64 && parts.len() == 1,
                };
                band && low <= 13 && (high == 0 || high == low + 1)
            }
        };
        if parts.is_empty() || !fits || parts.iter().any(|part| part.dc > 3 || part.ac > 3) {
            return Err(WHAT.into());
        }
        if frame.process == Process::Sequential {
            let lacks = |part: &Part| self.dc[part.dc].is_none() || self.ac[part.ac].is_none();
            if parts.iter().any(lacks) {
                self.add_standard_tables()?;
            }
        }
        let (data, behind) = self.rest.split_at(end_of_data(self.rest));
        self.rest = behind;
        Ok(Scan {
            parts,
            band: first..=last,
            high,
            low,
            data,
        })
    }

    /// The colour space, by libjpeg's rules.
    pub(super) fn colour(&self, frame: &Frame) -> Colour {
        let ids: Vec<u8> = frame.components.iter().map(|part| part.id).collect();
        match (ids.len(), self.adobe) {
            (1, _) => Colour::Grey,
            (3, _) if self.is_jfif => Colour::YCbCr,
            (3, Some(0)) => Colour::Rgb,
            (3, Some(_)) => Colour::YCbCr,
            (3, None) if ids == *b"RGB" => Colour::Rgb,
            (3, None) => Colour::YCbCr,
            (_, None | Some(0)) => Colour::Cmyk,
            (_, Some(_)) => Colour::Ycck,
        }
    }
}

/// The contents of a segment, which begins with its length, and the bytes after it.
fn segment(bytes: &[u8]) -> Result<(&[u8], &[u8]), Broken> {
    let (&length, rest) = bytes.split_first_chunk::<2>().ok_or(Broken::Ended)?;
    let length = usize::from(u16::from_be_bytes(length));
    let length = length
        .checked_sub(2)
        .ok_or(Broken::Segment("a segment's length"))?;
    rest.split_at_checked(length).ok_or(Broken::Ended)
}

/// Where the data of a scan end: at the first marker that is not a restart marker, or at the end of
/// the file.
fn end_of_data(bytes: &[u8]) -> usize {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&byte| byte == 0xff) {
        let at = from + at;
        match bytes.get(at + 1) {
            // An escaped 0xff in the data, or a restart marker.
            Some(0x00 | 0xd0..=0xd7) => from = at + 2,
            // Fill bytes before a marker.
            Some(0xff) => from = at + 1,
            Some(_) => return at,
            None => return at,
        }
    }
    bytes.len()
}

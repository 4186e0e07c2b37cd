//! MATLAB files of version 5, as far as datasets need them: arrays of small whole numbers.
//!
//! A file is a header of 128 bytes, and an element for each variable. An element is a tag (its type
//! and length) and its bytes. A variable is a matrix, usually within a zlib stream, and a matrix
//! itself consists of elements: flags, dimensions, name, numbers. Those are padded to 8 bytes; an
//! element of at most 4 bytes may lie in its tag. (MathWorks, "MAT-File Format".)
//!
//! The file is read as a stream, so that memory holds the numbers once and nothing else.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use flate2::read::ZlibDecoder;

use super::DataError;

/// The element types that occur here.
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const SINGLE: u32 = 7;
const DOUBLE: u32 = 9;
const INT64: u32 = 12;
const UINT64: u32 = 13;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// The classes of arrays of numbers, from doubles to unsigned integers of 64 bits.
const NUMERIC: std::ops::RangeInclusive<u8> = 6..=15;
/// The flag of a complex array.
const COMPLEX: u8 = 1 << 3;

/// A file whose array has more dimensions is damaged.
const MOST_DIMENSIONS: u64 = 32;
/// A file with a longer name is damaged.
const LONGEST_NAME: u64 = 1 << 10;

/// An array of numbers from 0 to 255.
#[derive(Debug)]
pub(super) struct Array {
    /// The first dimension varies fastest.
    pub(super) dimensions: Vec<usize>,
    pub(super) numbers: Vec<u8>,
}

/// Reads the variables with these two names and skips the others.
///
/// # Errors
/// When the file cannot be read, is not a MATLAB file of version 5, is damaged, or lacks an array
/// of whole numbers from 0 to 255 under either name.
pub(super) fn read(path: &Path, names: [&str; 2]) -> Result<[Array; 2], DataError> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let [first, second] = variables(BufReader::new(file), names).map_err(|error| {
        let wrong = |reason: String| DataError::Format {
            path: path.to_owned(),
            format: "a MATLAB file of version 5",
            reason,
        };
        match error.kind() {
            ErrorKind::UnexpectedEof => wrong("it ends too early; download it again".to_owned()),
            // Errors found here, and zlib's.
            ErrorKind::InvalidData | ErrorKind::InvalidInput => wrong(error.to_string()),
            _ => DataError::io("read", path)(error),
        }
    })?;
    let there = |array: Option<Array>, name: &str| {
        array.ok_or_else(|| DataError::Format {
            path: path.to_owned(),
            format: "such a file",
            reason: format!("it has no variable `{name}`"),
        })
    };
    Ok([there(first, names[0])?, there(second, names[1])?])
}

/// An error in the file, not in reading it.
fn wrong(reason: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason.into())
}

fn variables(mut file: impl Read, names: [&str; 2]) -> io::Result<[Option<Array>; 2]> {
    let mut header = [0; 128];
    file.read_exact(&mut header)?;
    if header.starts_with(b"MATLAB 7.3") {
        return Err(wrong("it is of version 7.3; save it with `-v7`"));
    }
    if header[124..] != [0, 1, b'I', b'M'] {
        return Err(wrong("its header is not that of version 5"));
    }
    let mut found = [None, None];
    while let Some(tag) = Tag::read_or_end(&mut file)? {
        // Skips what the variable leaves unread.
        let mut body = (&mut file).take(tag.length);
        match tag.kind {
            COMPRESSED => {
                let mut stream = ZlibDecoder::new(&mut body);
                let inner = Tag::read(&mut stream)?;
                if inner.kind == MATRIX {
                    variable(&mut stream, names, &mut found)?;
                }
                // Reads to its end, where its checksum is.
                io::copy(&mut stream, &mut io::sink())?;
            }
            MATRIX => variable(&mut body, names, &mut found)?,
            _ => {}
        }
        io::copy(&mut body, &mut io::sink())?;
        if body.limit() > 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(found)
}

/// Reads a variable if it has one of the names.
fn variable(
    body: &mut impl Read,
    names: [&str; 2],
    found: &mut [Option<Array>; 2],
) -> io::Result<()> {
    let flags = element(body, UINT32, 8)?;
    let dimensions = element(body, INT32, 4 * MOST_DIMENSIONS)?;
    let name = element(body, INT8, LONGEST_NAME)?;
    let Some(place) = names.iter().position(|wanted| wanted.as_bytes() == name) else {
        return Ok(());
    };
    let (dimensions, _) = dimensions.as_chunks::<4>();
    let dimensions = dimensions
        .iter()
        .map(|&bytes| usize::try_from(i32::from_le_bytes(bytes)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| wrong(format!("`{}` has negative dimensions", names[place])))?;
    let count = dimensions
        .iter()
        .try_fold(1_usize, |count, &side| count.checked_mul(side))
        .ok_or_else(|| wrong(format!("`{}` has dimensions {dimensions:?}", names[place])))?;
    let name = names[place];
    if !matches!(*flags, [class, flags, ..] if NUMERIC.contains(&class) && flags & COMPLEX == 0) {
        return Err(wrong(format!("`{name}` is not an array of real numbers")));
    }
    let numbers = numbers(body, count)?.ok_or_else(|| {
        wrong(format!(
            "`{name}` is not {dimensions:?} whole numbers from 0 to 255"
        ))
    })?;
    found[place] = Some(Array {
        dimensions,
        numbers,
    });
    Ok(())
}

/// Reads the numbers of an array, whatever type they are stored in: MATLAB computes in doubles, and
/// stores them in a smaller type where it can. Returns `None` unless they are `count` whole numbers
/// from 0 to 255.
fn numbers(body: &mut impl Read, count: usize) -> io::Result<Option<Vec<u8>>> {
    let tag = Tag::read(body)?;
    let Some(size) = number_size(tag.kind) else {
        return Ok(None);
    };
    if count.checked_mul(size).map(|length| length as u64) != Some(tag.length) {
        return Ok(None);
    }
    let mut numbers = Vec::new();
    let mut is_small = true;
    tag.pieces(body, |piece| {
        for stored in piece.chunks_exact(size) {
            let number = number(tag.kind, stored);
            is_small &= number.is_some();
            numbers.push(number.unwrap_or_default());
        }
    })?;
    Ok(is_small.then_some(numbers))
}

/// The size of a number of a type, in bytes.
fn number_size(kind: u32) -> Option<usize> {
    match kind {
        INT8 | UINT8 => Some(1),
        INT16 | UINT16 => Some(2),
        INT32 | UINT32 | SINGLE => Some(4),
        DOUBLE | INT64 | UINT64 => Some(8),
        _ => None,
    }
}

/// A stored number, if it is a whole number from 0 to 255.
fn number(kind: u32, stored: &[u8]) -> Option<u8> {
    let real = |number: f64| {
        (number.fract() == 0.0 && (0.0..256.0).contains(&number)).then_some(number as u8)
    };
    match (kind, stored) {
        (SINGLE, &[a, b, c, d]) => real(f32::from_le_bytes([a, b, c, d]).into()),
        (DOUBLE, &[a, b, c, d, e, f, g, h]) => real(f64::from_le_bytes([a, b, c, d, e, f, g, h])),
        // Signed or unsigned: of a number from 0 to 255 all bytes but the first are zero.
        (INT8, &[byte]) => i8::from_le_bytes([byte]).try_into().ok(),
        (_, [byte, zeros @ ..]) => zeros.iter().all(|&zero| zero == 0).then_some(*byte),
        _ => None,
    }
}

/// Reads an element, which must be of this type and at most `most` bytes long.
fn element(body: &mut impl Read, kind: u32, most: u64) -> io::Result<Vec<u8>> {
    let tag = Tag::read(body)?;
    if tag.kind != kind || tag.length > most {
        return Err(wrong(format!(
            "it has an element of type {} and {} bytes where one of type {kind} should be",
            tag.kind, tag.length
        )));
    }
    tag.bytes(body)
}

/// The tag before an element's bytes.
struct Tag {
    kind: u32,
    length: u64,
    /// The bytes of a small element, which lie within the tag.
    within: Option<[u8; 4]>,
}

impl Tag {
    fn read(from: &mut impl Read) -> io::Result<Self> {
        Self::read_or_end(from)?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    /// Returns `None` at the end of the file.
    fn read_or_end(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut tag = Vec::with_capacity(8);
        from.take(8).read_to_end(&mut tag)?;
        let (&[first, second], []) = tag.as_chunks::<4>() else {
            return match tag.is_empty() {
                true => Ok(None),
                false => Err(ErrorKind::UnexpectedEof.into()),
            };
        };
        let word = u32::from_le_bytes(first);
        Ok(Some(match word >> 16 {
            0 => Self {
                kind: word,
                length: u32::from_le_bytes(second).into(),
                within: None,
            },
            length => Self {
                kind: word & 0xffff,
                length: length.min(4).into(),
                within: Some(second),
            },
        }))
    }

    /// The element's bytes; leaves the reader after their padding.
    fn bytes(&self, from: &mut impl Read) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.pieces(from, |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    /// Reads the bytes piece by piece, so that an element takes no memory before its bytes arrive.
    /// Every piece but the last is a multiple of eight bytes long.
    fn pieces(&self, from: &mut impl Read, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        if let Some(bytes) = self.within {
            take(&bytes[..self.length as usize]);
            return Ok(());
        }
        let mut piece = vec![0; 1 << 16];
        let mut left = self.length;
        while left > 0 {
            let length = left.min(piece.len() as u64);
            let piece = &mut piece[..length as usize];
            from.read_exact(piece)?;
            take(piece);
            left -= length;
        }
        let padding = self.length.next_multiple_of(8) - self.length;
        io::copy(&mut from.take(padding), &mut io::sink())?;
        Ok(())
    }
}

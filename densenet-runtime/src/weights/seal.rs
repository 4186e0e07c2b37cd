//! The checksum of the files that we write.
//!
//! It is the CRC-32 of all bytes of the file, with its own digits taken as zeros, so it detects
//! every changed bit. In checkpoints of format 1 it covers only the numbers.

use std::ops::Range;

use serde::Deserialize;

/// The note with the checksum, in hexadecimal digits.
pub(crate) const NOTE: &str = "densenet.crc32";
/// The digits of a file that is not sealed yet.
pub(super) const BLANK: &str = "00000000";

/// Writes the checksum of a file into its header, in place of the [`BLANK`] digits.
pub(super) fn seal(bytes: &mut [u8], header: Range<usize>) {
    if let Some(digits) = digits(bytes, header) {
        let checksum = crc32fast::hash(bytes);
        bytes[digits].copy_from_slice(format!("{checksum:08x}").as_bytes());
    }
}

/// Whether a file's bytes match its checksum.
pub(super) fn is_whole(bytes: &[u8], header: Range<usize>) -> bool {
    let Some(digits) = digits(bytes, header) else {
        return false;
    };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..digits.start]);
    hasher.update(BLANK.as_bytes());
    hasher.update(&bytes[digits.end..]);
    format!("{:08x}", hasher.finalize()).as_bytes() == &bytes[digits]
}

/// Where the digits are.
fn digits(bytes: &[u8], header: Range<usize>) -> Option<Range<usize>> {
    // Inside a JSON string the quotes would be escaped, so this is the note.
    let key = format!("\"{NOTE}\":\"");
    let within = bytes.get(header.clone())?;
    let at = within
        .windows(key.len())
        .position(|window| window == key.as_bytes())?;
    let start = header.start + at + key.len();
    let end = start + BLANK.len();
    (end < header.end && bytes[end] == b'"').then_some(start..end)
}

/// The checksum of the numbers in a checkpoint of format 1, from its note.
pub(super) fn of_numbers(note: &str) -> Option<u32> {
    #[derive(Deserialize)]
    struct Format1 {
        format: u32,
        checksum: u32,
    }
    let note: Format1 = serde_json::from_str(note).ok()?;
    (note.format == 1).then_some(note.checksum)
}

/// The CRC-32 of several slices of numbers, one after another.
pub(super) fn checksum<'a>(parts: impl IntoIterator<Item = &'a [f32]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for values in parts {
        // In pieces, so that the bytes are not in memory twice.
        for piece in values.chunks(1 << 14) {
            let bytes: Vec<u8> = piece.iter().flat_map(|v| v.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
    }
    hasher.finalize()
}

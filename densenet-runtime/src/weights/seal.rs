//! The checksum of a file of ours.
//!
//! It is the CRC-32 of all of the file's bytes, where its own digits count as zeros, so that no
//! bit of the file can change without being noticed. Checkpoints of format 1 have one of their
//! numbers alone.

use std::ops::Range;

use serde::Deserialize;

/// The note with the checksum, in hexadecimal digits.
pub(crate) const NOTE: &str = "densenet.crc32";
/// The checksum of a file that is not sealed yet.
pub(super) const BLANK: &str = "00000000";

/// Writes the checksum of a file into its header, of so many bytes from `start` on, where the
/// digits are [`BLANK`].
pub(super) fn seal(bytes: &mut [u8], header: Range<usize>) {
    if let Some(digits) = digits(bytes, header) {
        let checksum = crc32fast::hash(bytes);
        bytes[digits].copy_from_slice(format!("{checksum:08x}").as_bytes());
    }
}

/// Whether a file's bytes are those that were sealed.
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
    // Within a string of JSON the quotes would be escaped: this is the note.
    let key = format!("\"{NOTE}\":\"");
    let within = bytes.get(header.clone())?;
    let at = within
        .windows(key.len())
        .position(|window| window == key.as_bytes())?;
    let start = header.start + at + key.len();
    let end = start + BLANK.len();
    (end < header.end && bytes[end] == b'"').then_some(start..end)
}

/// The checksum that a checkpoint of format 1 has of its numbers, given its note.
pub(super) fn of_numbers(note: &str) -> Option<u32> {
    #[derive(Deserialize)]
    struct Format1 {
        format: u32,
        checksum: u32,
    }
    let note: Format1 = serde_json::from_str(note).ok()?;
    (note.format == 1).then_some(note.checksum)
}

/// The CRC-32 of numbers, one part after another.
pub(super) fn checksum<'a>(parts: impl IntoIterator<Item = &'a [f32]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for values in parts {
        // In pieces, so that not all bytes are in memory twice.
        for piece in values.chunks(1 << 14) {
            let bytes: Vec<u8> = piece.iter().flat_map(|v| v.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
    }
    hasher.finalize()
}

//! DICOM files, against pydicom (`scripts/golden_formats.py`).

use std::fs;

use densenet_runtime::data::{
    Crops, Depth, EvaluationCrop, ImageFolder, MAX_PIXELS, Picture, PictureError, Pictures,
    SampleRange, decode, decode_deep,
};
use tempfile::TempDir;

use crate::records::Records;

/// A file of 13 x 9, and the shares of white that its pixels are shown as.
struct Case {
    name: String,
    file: Vec<u8>,
    shares: Vec<f32>,
}

fn cases() -> Vec<Case> {
    let mut records = Records::open("dicom.bin");
    let mut cases = Vec::new();
    while !records.is_empty() {
        let (name, file) = (records.text(), records.part());
        let bytes = records.part();
        let shares = bytes.as_chunks().0.iter();
        cases.push(Case {
            name,
            file,
            shares: shares.map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        });
    }
    cases
}

fn shown(pictures: &Pictures, file: &[u8]) -> Vec<f32> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("picture.dcm");
    fs::write(&path, file).unwrap();
    let mut into = vec![7.0; 9 * 13];
    pictures.load_floats(&path, None, &mut into).unwrap();
    into
}

fn pictures() -> Pictures {
    let evaluation = EvaluationCrop {
        share: 1.0,
        ..Crops::Centre.into()
    };
    Pictures::shaped([1, 9, 13]).unwrap().evaluated(evaluation)
}

#[test]
fn pixels_are_shown_in_their_window_as_pydicom_shows_them() {
    let cases = cases();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let found = shown(&pictures(), &case.file);
        for (found, expected) in found.iter().zip(&case.shares) {
            assert!(
                (found - expected).abs() < 1e-5,
                "{}: {found}, {expected}",
                case.name
            );
        }
        let bytes = decode(&case.file).unwrap();
        for (found, expected) in bytes.pixels.iter().step_by(3).zip(&case.shares) {
            let expected = (expected * 65_535.0 / 256.0) as i32;
            assert!((i32::from(*found) - expected).abs() <= 1, "{}", case.name);
        }
    }
}

#[test]
fn a_range_that_is_given_goes_before_the_window_and_keeps_the_inversion() {
    let range = SampleRange {
        low: 100.0,
        high: 4000.0,
    };
    for (name, is_inverted) in [("dicom window", false), ("dicom window of inverted", true)] {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        let Picture::Deep(deep) = decode_deep(&case.file, MAX_PIXELS).unwrap() else {
            panic!("it has become bytes");
        };
        let found = shown(&pictures().ranged(range).unwrap(), &case.file);
        for (found, sample) in found.iter().zip(&deep.samples) {
            let share = ((sample - 100.0) / 3900.0).clamp(0.0, 1.0);
            let expected = if is_inverted { 1.0 - share } else { share };
            assert!((found - expected).abs() < 1e-6, "{name}");
        }
    }
}

#[test]
fn a_folder_of_dicom_files_is_one_of_floats() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a/1.DCM"), &cases()[0].file).unwrap();
    let folder = ImageFolder::open_as(&dir, pictures()).unwrap();
    assert_eq!(
        densenet_runtime::data::Dataset::depth(&folder),
        Depth::Floats
    );
}

/// The file with the value of an element of two bytes replaced.
fn with(file: &[u8], group: u16, element: u16, value: u16) -> Vec<u8> {
    let mut file = file.to_vec();
    let tag = [group.to_le_bytes(), element.to_le_bytes()].concat();
    // The last: the first is in a sequence.
    let at = file.windows(4).rposition(|bytes| bytes == tag).unwrap();
    file[at + 8..at + 10].copy_from_slice(&value.to_le_bytes());
    file
}

#[test]
fn what_a_dicom_file_claims_is_checked() {
    let whole = cases().swap_remove(0).file;
    let words = |file: Vec<u8>| decode(&file).unwrap_err().to_string();
    let wide = with(&whole, 0x28, 0x10, 60_000);
    assert!(words(wide.clone()).contains("data are too few"));
    let error = decode(&with(&wide, 0x28, 0x11, 60_000)).unwrap_err();
    assert!(matches!(error, PictureError::TooLarge { .. }), "{error}");
    for (element, value, expected) in [
        (0x10, 0, "make"),
        (0x100, 32, "of 32 bits a sample"),
        (0x101, 17, "bits stored make no sense"),
        (0x101, 0, "bits stored make no sense"),
        (0x102, 3, "bits stored make no sense"),
        (0x02, 3, "several samples a pixel"),
    ] {
        let found = decode(&with(&whole, 0x28, element, value));
        let error = found.map(|_| element).unwrap_err().to_string();
        assert!(
            value == 0 || error.contains(expected),
            "{element:x}: {error}"
        );
        assert!(!error.contains("panicked"), "{error}");
    }
    let replaced = |from: &[u8], to: &[u8]| {
        let at = whole.windows(from.len()).position(|bytes| bytes == from);
        let at = at.unwrap();
        [&whole[..at], to, &whole[at + from.len()..]].concat()
    };
    let colour = replaced(b"MONOCHROME2 ", b"RGB         ");
    assert!(words(colour).contains("a DICOM file in RGB"));
    let swapped = replaced(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0");
    assert!(words(swapped).contains("of the transfer syntax 1.2.840.10008.1.2.2"));
    let frames = replaced(b"IS\x02\x001 ", b"IS\x02\x0012");
    assert!(words(frames).contains("several frames"));
}

#[test]
fn a_dicom_file_with_compressed_pixels_is_refused_with_the_method_and_what_undoes_it() {
    let whole = cases().swap_remove(0).file;
    let plain = b"UI\x14\x001.2.840.10008.1.2.1\0";
    let at = whole.windows(plain.len()).position(|bytes| bytes == plain);
    let at = at.unwrap();
    for (number, method) in [
        ("5", "RLE"),
        ("4.50", "JPEG"),
        ("4.70", "lossless JPEG"),
        ("4.80", "JPEG-LS"),
        ("4.91", "JPEG 2000"),
        ("4.201", "high-throughput JPEG 2000"),
    ] {
        let mut syntax = format!("1.2.840.10008.1.2.{number}");
        if syntax.len() % 2 == 1 {
            syntax.push('\0');
        }
        let length = (syntax.len() as u16).to_le_bytes();
        let rest = &whole[at + plain.len()..];
        let file = [&whole[..at], b"UI", &length, syntax.as_bytes(), rest].concat();
        let error = decode(&file).unwrap_err().to_string();
        let words = format!("compressed by {method} (`gdcmconv --raw IN OUT` writes one");
        assert!(error.contains(&words), "{error}");
    }
}

#[test]
fn a_dicom_file_that_ends_early_or_is_damaged_is_an_error() {
    for Case { name, file, .. } in cases() {
        for end in 0..file.len() - 1 {
            let error = decode(&file[..end]).map(|_| &name).unwrap_err();
            assert!(!error.to_string().contains("panicked"), "{name}: {error}");
        }
        for at in 132..file.len() {
            for byte in [0, 0x7f, 0xff] {
                let mut file = file.clone();
                file[at] = byte;
                if let Err(error) = decode_deep(&file, 1 << 20) {
                    assert!(!error.to_string().contains("panicked"), "{name}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_sequence_of_unknown_type_is_left_out() {
    let whole = cases().swap_remove(0).file;
    let at = whole
        .windows(6)
        .position(|bytes| bytes == b"\x28\0\x02\0US");
    let (before, after) = whole.split_at(at.expect("samples per pixel"));
    // Private, of undefined length, and so are its item and a sequence in it.
    let sequence = [
        &b"\x09\0\x01\x10UN\0\0\xff\xff\xff\xff"[..],
        b"\xfe\xff\0\xe0\xff\xff\xff\xff",
        b"\x09\0\x02\x10\x04\0\0\0ABCD",
        b"\x09\0\x03\x10\xff\xff\xff\xff",
        b"\xfe\xff\xdd\xe0\0\0\0\0",
        b"\xfe\xff\x0d\xe0\0\0\0\0",
        b"\xfe\xff\xdd\xe0\0\0\0\0",
    ]
    .concat();
    let file = [before, &sequence, after].concat();
    assert_eq!(decode(&file).unwrap(), decode(&whole).unwrap());
}

//! SVHN's files, as scipy writes them (`scripts/golden_data.py`).

use std::fs;

use densenet_runtime::data::{DataError, Dataset, InMemory, Normalization, svhn};
use tempfile::TempDir;

use crate::golden;

fn image(set: &InMemory, index: usize) -> (Vec<u8>, u32) {
    let mut bytes = vec![0; 32 * 32 * 3];
    set.load(index, None, &mut bytes).unwrap();
    (bytes, set.target(index).class().unwrap())
}

#[test]
fn images_are_upright_labels_are_digits_and_pixels_are_divided_by_255() {
    for file in ["svhn_bytes.mat", "svhn_doubles.mat"] {
        let set = svhn::open(golden(file)).unwrap();
        assert_eq!((set.len(), set.shape()), (4, [3, 32, 32]));
        assert_eq!(set.classes().len(), 10);
        assert_eq!(set.normalization(), &Normalization::none(3));
        let labels: Vec<u32> = (0..4).map(|index| image(&set, index).1).collect();
        assert_eq!(labels, [1, 0, 9, 5], "{file}");
        for index in 0..4 {
            let (bytes, _) = image(&set, index as usize);
            for (at, pixel) in bytes.chunks_exact(3).enumerate() {
                let (row, column) = ((at / 32) as u8, (at % 32) as u8);
                assert_eq!(pixel, [row, column, 100 + index], "{file}, image {index}");
            }
        }
    }
}

#[test]
fn numbers_of_any_type_are_read() {
    let expected = svhn::open(golden("svhn_bytes.mat")).unwrap();
    for kind in [
        "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "single",
    ] {
        let set = svhn::open(golden(&format!("svhn_{kind}.mat"))).unwrap();
        for index in 0..4 {
            assert!(
                image(&set, index) == image(&expected, index),
                "{kind}, {index}"
            );
        }
    }
}

#[test]
fn a_single_image_may_lack_the_last_dimension() {
    let set = svhn::open(golden("svhn_one.mat")).unwrap();
    assert_eq!(set.len(), 1);
    let third = image(&svhn::open(golden("svhn_bytes.mat")).unwrap(), 2);
    assert!(image(&set, 0) == third);
}

#[test]
fn numbers_that_do_not_fit_a_byte_are_refused_in_any_type() {
    // A small file, not compressed: a label is changed in place.
    for (kind, size, of) in [
        (3_u32, 2, -1_i64),
        (4, 2, 256),
        (5, 4, -5),
        (6, 4, 70_000),
        (12, 8, -9),
        (13, 8, 1 << 40),
    ] {
        let message = refusal(&with_labels(kind, size, &[1, 2, of, 3]));
        assert!(
            message.contains("`y` is not [4, 1] whole numbers from 0 to 255"),
            "{kind}: {message}"
        );
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("train_32x32.mat");
        fs::write(&path, with_labels(kind, size, &[1, 2, 10, 3])).unwrap();
        assert_eq!(image(&svhn::open(&path).unwrap(), 2).1, 0, "{kind}");
    }
}

/// The file of doubles with other labels: numbers of a type and of this many bytes.
fn with_labels(kind: u32, size: usize, labels: &[i64; 4]) -> Vec<u8> {
    let whole = fs::read(golden("svhn_doubles.mat")).unwrap();
    // The last element: a tag and four doubles.
    let tag = whole.len() - 8 - 4 * 8;
    let mut bytes = whole[..tag].to_vec();
    bytes.extend(kind.to_le_bytes());
    bytes.extend((4 * size as u32).to_le_bytes());
    for label in labels {
        bytes.extend(&label.to_le_bytes()[..size]);
    }
    // The length of the variable, whose tag is before its flags, dimensions and name.
    let variable = tag - 16 - 16 - 8 - 8;
    let length = (bytes.len() - variable - 8) as u32;
    bytes[variable + 4..variable + 8].copy_from_slice(&length.to_le_bytes());
    bytes
}

#[test]
fn the_extra_images_follow_the_training_set() {
    let dir = TempDir::new().unwrap();
    let place = |name: &str, from: &str| {
        fs::copy(golden(from), dir.path().join(name)).unwrap();
    };
    place("train_32x32.mat", "svhn_bytes.mat");
    place("test_32x32.mat", "svhn_bytes.mat");
    let error = svhn::train_and_test(&dir).unwrap_err();
    assert!(matches!(error, DataError::Missing { .. }));
    assert!(error.to_string().contains("extra_32x32.mat"), "{error}");

    place("extra_32x32.mat", "svhn_doubles.mat");
    let (train, test) = svhn::train_and_test(&dir).unwrap();
    assert_eq!((train.len(), test.len()), (8, 4));
    assert_eq!(image(&train, 5), image(&test, 1));
    assert_eq!(train.normalization(), &Normalization::none(3));
}

/// The message for a file with these bytes.
fn refusal(bytes: &[u8]) -> String {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("train_32x32.mat");
    fs::write(&path, bytes).unwrap();
    let message = svhn::open(&path).unwrap_err().to_string();
    assert!(message.contains("train_32x32.mat is not"), "{message}");
    message
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    for file in ["svhn_bytes.mat", "svhn_doubles.mat"] {
        let whole = fs::read(golden(file)).unwrap();
        for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
            let message = refusal(&whole[..length]);
            let expected = ["ends too early", "has no variable"];
            let known = expected.iter().any(|words| message.contains(words));
            assert!(known, "{file}, {length}: {message}");
        }
    }
}

#[test]
fn a_damaged_file_is_refused_or_says_what_it_holds() {
    let whole = fs::read(golden("svhn_bytes.mat")).unwrap();
    // The text at its start means nothing, and neither do the lengths of skipped elements.
    for at in 124..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("train_32x32.mat");
        fs::write(&path, bytes).unwrap();
        match svhn::open(&path) {
            Err(error) => assert!(error.to_string().contains("train_32x32.mat"), "{error}"),
            Ok(set) => {
                let intact = svhn::open(golden("svhn_bytes.mat")).unwrap();
                let images = |set: &InMemory| (0..4).map(|i| image(set, i)).collect::<Vec<_>>();
                assert_eq!(images(&set), images(&intact), "byte {at}");
            }
        }
    }
}

#[test]
fn other_files_are_refused_for_what_they_are() {
    let message = refusal(&[b'x'; 300]);
    assert!(
        message.contains("its header is not that of version 5"),
        "{message}"
    );
    let mut newer = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".to_vec();
    newer.resize(600, 0);
    let message = refusal(&newer);
    assert!(message.contains("save it with `-v7`"), "{message}");

    let whole = fs::read(golden("svhn_doubles.mat")).unwrap();
    let five = 5.0_f64.to_le_bytes();
    let at = whole.windows(8).rposition(|bytes| bytes == five).unwrap();
    for (label, words) in [
        (12.0_f64, "image 3 has label 12; they go from 1 to 10"),
        (0.0, "image 3 has label 0"),
        (1.5, "`y` is not [4, 1] whole numbers from 0 to 255"),
    ] {
        let mut bytes = whole.clone();
        bytes[at..at + 8].copy_from_slice(&label.to_le_bytes());
        let message = refusal(&bytes);
        assert!(message.contains(words), "{message}");
    }
}

//! IDX files, and images in memory.

use std::{fs, io::Write, path::Path};

use densenet_runtime::data::{DataError, Dataset, InMemory, Rng, ShiftAndFlip, idx};
use flate2::{Compression, write::GzEncoder};
use tempfile::TempDir;

const CLASSES: [&str; 3] = ["x", "y", "z"];

fn images(count: u32) -> Vec<u8> {
    let mut file = vec![0, 0, 8, 3];
    for side in [count, 2, 3] {
        file.extend(side.to_be_bytes());
    }
    file.extend((0..count as u8 * 6).map(|byte| byte * 10));
    file
}

fn labels(labels: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, 1];
    file.extend((labels.len() as u32).to_be_bytes());
    file.extend(labels);
    file
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn opened(images: &[u8], labels: &[u8]) -> Result<InMemory, DataError> {
    let dir = TempDir::new().unwrap();
    let (images_at, labels_at) = (dir.path().join("images"), dir.path().join("labels"));
    fs::write(&images_at, images).unwrap();
    fs::write(&labels_at, labels).unwrap();
    idx::open(images_at, labels_at, &CLASSES)
}

fn image(set: &InMemory, index: usize) -> (Vec<u8>, u32) {
    let mut bytes = vec![0; set.shape().iter().product()];
    set.load(index, None, &mut bytes).unwrap();
    (bytes, set.target(index).class().unwrap())
}

#[test]
fn images_and_labels_are_read_in_order() {
    let set = opened(&images(3), &labels(&[2, 0, 1])).unwrap();
    assert_eq!((set.len(), set.shape()), (3, [1, 2, 3]));
    assert_eq!(set.classes(), CLASSES);
    assert_eq!(image(&set, 0), (vec![0, 10, 20, 30, 40, 50], 2));
    assert_eq!(image(&set, 2), (vec![120, 130, 140, 150, 160, 170], 1));
}

#[test]
fn a_folder_is_read_whether_compressed_or_not_and_normalised_as_its_training_set() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("train-images-idx3-ubyte.gz", &compressed(&images(3)));
    write("train-labels-idx1-ubyte", &labels(&[0, 1, 2]));
    write("t10k-images-idx3-ubyte", &images(1));
    write("t10k-labels-idx1-ubyte.gz", &compressed(&labels(&[1])));
    let (train, test) = idx::train_and_test(&dir, &CLASSES).unwrap();
    assert_eq!((train.len(), test.len()), (3, 1));
    assert_eq!(train.normalization(), test.normalization());
    assert!((train.normalization().mean[0] - 85.0 / 255.0).abs() < 1e-6);
}

#[test]
fn files_may_have_a_dot_in_their_names_where_others_have_a_hyphen() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("train-images.idx3-ubyte", &images(3));
    write(
        "train-labels.idx1-ubyte.gz",
        &compressed(&labels(&[0, 1, 2])),
    );
    write("t10k-images.idx3-ubyte.gz", &compressed(&images(1)));
    let error = idx::train_and_test(&dir, &CLASSES).unwrap_err().to_string();
    assert!(
        error.contains("t10k-labels-idx1-ubyte is missing"),
        "{error}"
    );
    assert!(
        error.contains("may also be t10k-labels.idx1-ubyte"),
        "{error}"
    );
    write("t10k-labels-idx1-ubyte", &labels(&[1]));
    let (train, test) = idx::train_and_test(&dir, &CLASSES).unwrap();
    assert_eq!((train.len(), test.len()), (3, 1));
}

#[test]
fn a_file_is_read_no_further_than_its_dimensions_which_are_checked_against_its_size() {
    let refusal = |images: &[u8]| opened(images, &labels(&[0, 1])).unwrap_err().to_string();
    // 10 MB of zeros in 10 kB, after two images.
    let bomb = compressed(&[images(2), vec![0; 10_000_000]].concat());
    let error = refusal(&bomb);
    assert!(error.contains("more data than the 12 bytes"), "{error}");
    // A terabyte, in a file of 16 bytes.
    let mut claims = images(2)[..16].to_vec();
    claims[4..16].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x10, 0]);
    for claims in [claims.clone(), compressed(&claims)] {
        let error = refusal(&claims);
        assert!(
            error.contains("more than a file of its size can hold"),
            "{error}"
        );
    }
    // Cut, or damaged in its checksum.
    let whole = compressed(&images(2));
    let mut damaged = whole.clone();
    let sum = damaged.len() - 8;
    damaged[sum] ^= 1;
    for bytes in [&whole[..whole.len() - 3], &damaged] {
        let error = refusal(bytes);
        assert!(error.contains("cannot decompress"), "{error}");
    }
}

#[test]
fn errors_of_idx_files_say_what_is_wrong() {
    let fails = |images: &[u8], labels: &[u8], expected: &str| {
        let error = opened(images, labels).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let (good_images, good_labels) = (images(2), labels(&[0, 1]));
    fails(&good_labels, &good_images, "magic number is 0x00000801");
    fails(
        &good_images[..3],
        &good_labels,
        "3 bytes, fewer than a magic number",
    );
    fails(
        &good_images[..10],
        &good_labels,
        "ends within its dimensions",
    );
    fails(
        &good_images[..20],
        &good_labels,
        "has 4 bytes of data, but 12 are expected for its dimensions [2, 2, 3]",
    );
    fails(
        &[&good_images[..], &[1]].concat(),
        &good_labels,
        "has more data than the 12 bytes of its dimensions [2, 2, 3]",
    );
    fails(&good_images, &labels(&[0]), "2 images");
    fails(
        &good_images,
        &labels(&[0, 3]),
        "image 1 has label 3, but there are 3 classes",
    );
    fails(
        &[
            0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        ],
        &good_labels,
        "its dimensions are",
    );
    fails(
        &[0x1f, 0x8b, 8, 0, 1, 2, 3],
        &good_labels,
        "cannot decompress",
    );
    let missing = idx::train_and_test(Path::new("nowhere"), &CLASSES).unwrap_err();
    assert!(
        missing.to_string().contains("it may also end in .gz"),
        "{missing}"
    );
}

#[test]
fn images_are_padded_and_split() {
    let set = opened(&images(3), &labels(&[2, 0, 1])).unwrap();
    let normalization = set.normalization().clone();
    let padded = set.padded([4, 5], &[7]).unwrap();
    assert_eq!(padded.shape(), [1, 4, 5]);
    assert_eq!(padded.normalization(), &normalization);
    let expected = [
        7, 7, 7, 7, 7, //
        7, 60, 70, 80, 7, //
        7, 90, 100, 110, 7, //
        7, 7, 7, 7, 7,
    ];
    assert_eq!(image(&padded, 1), (expected.to_vec(), 0));
    let (first, rest) = padded.split(2);
    assert_eq!((first.len(), rest.len()), (2, 1));
    assert_eq!(image(&rest, 0).1, 1);
    assert!(first.padded([3, 3], &[0]).is_err());
}

#[test]
fn only_training_augments() {
    let set = InMemory::new([1, 2, 2], vec![1, 2, 3, 4], vec![0], vec!["a".to_owned()])
        .unwrap()
        .augmented(ShiftAndFlip::paper(vec![0]))
        .unwrap();
    assert_eq!(image(&set, 0).0, [1, 2, 3, 4]);
    let mut varied = 0;
    for epoch in 0..50 {
        let mut bytes = [0; 4];
        set.load(0, Some(&mut Rng::new(0, epoch, 0)), &mut bytes)
            .unwrap();
        varied += usize::from(bytes != [1, 2, 3, 4]);
    }
    assert!(varied > 30, "{varied}");
}

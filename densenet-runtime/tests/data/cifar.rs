//! CIFAR's binary files.

use std::fs;

use densenet_runtime::data::{DataError, Dataset, Target, cifar};
use tempfile::TempDir;

/// A record: its label bytes, and planes of one value each.
fn record(labels: &[u8], [red, green, blue]: [u8; 3]) -> Vec<u8> {
    [labels, &[red; 1024], &[green; 1024], &[blue; 1024]].concat()
}

#[test]
fn cifar_100_has_fine_labels_and_interleaved_pixels() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    let train = [
        record(&[9, 0], [0, 50, 100]),
        record(&[9, 1], [200, 50, 100]),
    ]
    .concat();
    write("train.bin", &train);
    write("test.bin", &record(&[9, 1], [1, 2, 3]));
    write("fine_label_names.txt", b"apple\nbear\n\n");
    let (train, test) = cifar::cifar100(&dir).unwrap();
    assert_eq!(train.classes(), ["apple", "bear"]);
    assert_eq!((train.len(), train.shape()), (2, [3, 32, 32]));
    assert_eq!(test.normalization(), train.normalization());
    assert_eq!(train.mean_colour(), [100, 50, 100]);
    let mut bytes = vec![0; 3072];
    test.load(0, None, &mut bytes).unwrap();
    assert_eq!(test.target(0), Target::Class(1));
    assert!(bytes.chunks_exact(3).all(|pixel| pixel == [1, 2, 3]));
}

#[test]
fn cifar_10_is_five_files_and_part_of_a_record_is_an_error() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("batches.meta.txt", b"airplane\nautomobile\n");
    write("test_batch.bin", &record(&[0], [0; 3]));
    for batch in 1..=5 {
        let bytes = record(&[batch % 2], [batch; 3]);
        write(&format!("data_batch_{batch}.bin"), &bytes);
    }
    let (train, test) = cifar::cifar10(&dir).unwrap();
    assert_eq!((train.len(), test.len()), (5, 1));

    write("data_batch_3.bin", &record(&[2], [0; 3]));
    assert!(matches!(
        cifar::cifar10(&dir),
        Err(DataError::Label { label: 2, .. })
    ));
    write("data_batch_3.bin", &[0; 3000]);
    let error = cifar::cifar10(&dir).unwrap_err().to_string();
    assert!(error.contains("data_batch_3.bin has 3000 bytes"), "{error}");
    fs::remove_file(dir.path().join("data_batch_3.bin")).unwrap();
    assert!(matches!(
        cifar::cifar10(&dir),
        Err(DataError::Missing { .. })
    ));
}

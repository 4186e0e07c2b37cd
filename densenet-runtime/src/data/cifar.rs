//! CIFAR-10 and CIFAR-100, in their binary versions.
//!
//! A record is one label byte (CIFAR-100: two, the coarse one first) and 3072 bytes: 32x32 red,
//! then green, then blue.
//!
//! The paper's run on CIFAR-10 with augmentation, "C10+" (section 4.2):
//!
//! ```no_run
//! use std::sync::Arc;
//! use densenet_runtime::data::{Loader, ShiftAndFlip, cifar};
//! use densenet_runtime::dfdx::prelude::*;
//! use densenet_runtime::train::{Config, Fit, Trainer};
//!
//! densenet_runtime::densenet! {
//!     DenseNetBC { blocks: [16, 16, 16], k: 12, theta: 0.5, bottleneck }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (train, test) = cifar::cifar10("cifar-10-batches-bin")?;
//! let fill = train.mean_colour();
//! let train = train.augmented(ShiftAndFlip::paper(fill))?;
//! let config = Config::cifar();
//! let train = Loader::training(Arc::new(train), config.batch)?;
//! let test = Loader::evaluation(Arc::new(test), config.batch)?;
//! let model = Cpu::default().build_module::<DenseNetBC, f32>();
//! Trainer::new(model, config)?.fit(&train, &test, &Fit::default(), &mut ())?;
//! # Ok(())
//! # }
//! ```
//!
//! Without augmentation ("C10") the network has `dropout: 0.2`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{DataError, Dataset, InMemory, in_memory};

const SIDE: usize = 32;
const CHANNELS: usize = 3;
const PIXELS: usize = SIDE * SIDE;

/// Reads the training and the test set of CIFAR-10 from `data_batch_1.bin` to `data_batch_5.bin`,
/// `test_batch.bin` and `batches.meta.txt`. Both are normalised by the training
/// set's mean and standard deviation.
///
/// # Errors
/// When a file is missing, cannot be read, is not a whole number of records, or has a label outside
/// the classes.
pub fn cifar10(dir: impl AsRef<Path>) -> Result<(InMemory, InMemory), DataError> {
    let dir = folder(dir.as_ref())?;
    let classes = names(&dir.join("batches.meta.txt"))?;
    let batches: Vec<PathBuf> = (1..=5)
        .map(|batch| dir.join(format!("data_batch_{batch}.bin")))
        .collect();
    pair(&batches, &[dir.join("test_batch.bin")], 1, classes)
}

/// Reads the training and the test set of CIFAR-100, with its 100 fine labels, from `train.bin`,
/// `test.bin` and `fine_label_names.txt`. Both are normalised by the training
/// set's mean and standard deviation.
///
/// # Errors
/// As [`cifar10`].
pub fn cifar100(dir: impl AsRef<Path>) -> Result<(InMemory, InMemory), DataError> {
    let dir = folder(dir.as_ref())?;
    let classes = names(&dir.join("fine_label_names.txt"))?;
    pair(
        &[dir.join("train.bin")],
        &[dir.join("test.bin")],
        2,
        classes,
    )
}

fn folder(dir: &Path) -> Result<&Path, DataError> {
    if dir.is_dir() {
        return Ok(dir);
    }
    Err(DataError::Missing {
        path: dir.to_owned(),
        wanted: "it should be the folder of the binary version of CIFAR".to_owned(),
    })
}

fn pair(
    train: &[PathBuf],
    test: &[PathBuf],
    label_bytes: usize,
    classes: Vec<String>,
) -> Result<(InMemory, InMemory), DataError> {
    let train = read(train, label_bytes, classes.clone())?;
    let test = read(test, label_bytes, classes)?.normalized(train.normalization().clone());
    Ok((train, test))
}

/// Reads files of records. The last of a record's label bytes is its label.
fn read(
    paths: &[PathBuf],
    label_bytes: usize,
    classes: Vec<String>,
) -> Result<InMemory, DataError> {
    let record = label_bytes + CHANNELS * PIXELS;
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for path in paths {
        let bytes = contents(path)?;
        if bytes.is_empty() || bytes.len() % record != 0 {
            return Err(DataError::Length {
                path: path.to_owned(),
                expected: bytes.len().div_ceil(record).max(1) * record,
                found: bytes.len(),
                why: format!(" for whole records of {record}"),
            });
        }
        let before = labels.len();
        for record in bytes.chunks_exact(record) {
            let (label, planes) = record.split_at(label_bytes);
            labels.push(u32::from(label[label_bytes - 1]));
            images.extend((0..PIXELS * CHANNELS).map(|at| {
                let (pixel, channel) = (at / CHANNELS, at % CHANNELS);
                planes[channel * PIXELS + pixel]
            }));
        }
        let at = path.display().to_string();
        in_memory::check_labels(&labels[before..], classes.len(), &at)?;
    }
    InMemory::new([CHANNELS, SIDE, SIDE], images, labels, classes)
}

fn names(path: &Path) -> Result<Vec<String>, DataError> {
    let text = contents(path)?;
    let names = String::from_utf8_lossy(&text);
    Ok(names
        .lines()
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(ToOwned::to_owned)
        .collect())
}

fn contents(path: &Path) -> Result<Vec<u8>, DataError> {
    if !path.is_file() {
        return Err(DataError::Missing {
            path: path.to_owned(),
            wanted: "it should be a file of the binary version of CIFAR".to_owned(),
        });
    }
    fs::read(path).map_err(DataError::io("read", path))
}

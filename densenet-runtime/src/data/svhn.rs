//! SVHN, the Street View House Numbers: cropped digits, in MATLAB files.
//!
//! `train_32x32.mat`, `extra_32x32.mat` and `test_32x32.mat` hold a variable `X` of 32 x 32 x 3 x
//! images bytes (rows, columns, channels) and a variable `y` of labels, in which 10 stands for the
//! digit 0. As in the paper, pixels are divided by 255 and not normalised further. The paper holds
//! 6,000 images of `train` and `extra` out for validation, and tests the model with the lowest
//! validation error (sections 4.1 and 4.2):
//!
//! ```no_run
//! use std::sync::Arc;
//! use densenet_runtime::data::{Loader, svhn};
//! use densenet_runtime::dfdx::prelude::*;
//! use densenet_runtime::train::{Config, Fit, Trainer};
//!
//! densenet_runtime::densenet! { DenseNet { blocks: [12, 12, 12], k: 12, dropout: 0.2 } }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (train, test) = svhn::train_and_test("svhn")?;
//! let (validation, train) = train.split(6_000);
//! let config = Config::svhn();
//! let train = Loader::training(Arc::new(train), config.batch)?;
//! let validation = Loader::evaluation(Arc::new(validation), config.batch)?;
//! let test = Loader::evaluation(Arc::new(test), config.batch)?;
//! let model = Cpu::default().build_module::<DenseNet, f32>();
//! let mut trainer = Trainer::new(model, config)?;
//! let fit = Fit { best: Some("best.safetensors".into()), ..Fit::default() };
//! trainer.fit(&train, &validation, &fit, &mut ())?;
//! trainer.resume("best.safetensors")?;
//! println!("test error: {:.2}%", 100.0 * trainer.evaluate(&test)?.top1_error());
//! # Ok(())
//! # }
//! ```

use std::path::Path;

use super::{DataError, InMemory, Normalization, idx, mat};

const SIDE: usize = 32;
const CHANNELS: usize = 3;
const PIXELS: usize = SIDE * SIDE;

/// Reads the paper's training set, `train_32x32.mat` followed by `extra_32x32.mat`, and its test
/// set, `test_32x32.mat`: 604,388 and 26,032 images, in 1.9 GB of memory.
///
/// # Errors
/// When a file is missing, cannot be read, is not a MATLAB file of version 5, is damaged, or holds
/// anything but images and their labels.
pub fn train_and_test(dir: impl AsRef<Path>) -> Result<(InMemory, InMemory), DataError> {
    let dir = dir.as_ref();
    if !dir.is_dir() {
        return Err(DataError::Missing {
            path: dir.to_owned(),
            wanted: "it should be the folder of SVHN's cropped digits, with train_32x32.mat, \
                     extra_32x32.mat and test_32x32.mat"
                .to_owned(),
        });
    }
    // The small file comes first, so that a missing one is reported before the large ones are read.
    let test = open(dir.join("test_32x32.mat"))?;
    let train = open(dir.join("train_32x32.mat"))?;
    let train = train.joined(open(dir.join("extra_32x32.mat"))?)?;
    Ok((train, test))
}

/// Reads one of the files, for a training set without the extra images, say.
///
/// # Errors
/// As [`train_and_test`].
pub fn open(path: impl AsRef<Path>) -> Result<InMemory, DataError> {
    let path = path.as_ref();
    if !path.is_file() {
        return Err(DataError::Missing {
            path: path.to_owned(),
            wanted: "it should be a file of SVHN's cropped digits, such as train_32x32.mat"
                .to_owned(),
        });
    }
    let [images, labels] = mat::read(path, ["X", "y"])?;
    let count = match *images.dimensions {
        [SIDE, SIDE, CHANNELS, count] => count,
        // MATLAB drops a last dimension of 1.
        [SIDE, SIDE, CHANNELS] => 1,
        ref other => {
            return Err(DataError::Format {
                path: path.to_owned(),
                format: "a file of SVHN",
                reason: format!(
                    "`X` is {other:?}; [32, 32, 3] and the number of images are expected"
                ),
            });
        }
    };
    let at = path.display().to_string();
    if labels.numbers.len() != count {
        return Err(DataError::Counts {
            images: count,
            images_at: format!("`X` of {at}"),
            labels: labels.numbers.len(),
            labels_at: format!("`y` of {at}"),
        });
    }
    let mut labels = labels.numbers;
    for (index, label) in labels.iter_mut().enumerate() {
        match *label {
            1..=9 => {}
            10 => *label = 0,
            other => {
                return Err(DataError::Format {
                    path: path.to_owned(),
                    format: "a file of SVHN",
                    reason: format!("image {index} has label {other}; they go from 1 to 10"),
                });
            }
        }
    }
    let labels = labels.into_iter().map(u32::from).collect();
    let mut images = images.numbers;
    let mut image = [0; CHANNELS * PIXELS];
    for bytes in images.chunks_exact_mut(image.len()) {
        image.copy_from_slice(bytes);
        for (at, byte) in bytes.iter_mut().enumerate() {
            let (pixel, channel) = (at / CHANNELS, at % CHANNELS);
            let (row, column) = (pixel / SIDE, pixel % SIDE);
            *byte = image[channel * PIXELS + column * SIDE + row];
        }
    }
    let digits = idx::DIGITS.map(str::to_owned).to_vec();
    let images = InMemory::new([CHANNELS, SIDE, SIDE], images, labels, digits)?;
    Ok(images.normalized(Normalization::none(CHANNELS)))
}

//! IDX files: MNIST, Fashion-MNIST and their kin.
//!
//! Four files: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k` for
//! `train`, plain or with `.gz`. A file is a magic number, its dimensions as big-endian 32-bit
//! numbers, and bytes.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use super::{DataError, Dataset, InMemory, in_memory};

/// The classes of MNIST.
pub const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// The classes of Fashion-MNIST.
pub const FASHION: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// Reads the training and the test set of a folder; both are normalised as the training set is.
///
/// # Errors
/// When a file is missing, cannot be read, is no IDX file or shorter or longer than its header
/// says, when images and labels are not equally many, or a label is no class.
pub fn train_and_test(
    dir: impl AsRef<Path>,
    classes: &[&str],
) -> Result<(InMemory, InMemory), DataError> {
    let dir = dir.as_ref();
    let read = |set: &str| {
        open(
            find(dir, &format!("{set}-images-idx3-ubyte"))?,
            find(dir, &format!("{set}-labels-idx1-ubyte"))?,
            classes,
        )
    };
    let train = read("train")?;
    let test = read("t10k")?.normalized(train.normalization().clone());
    Ok((train, test))
}

/// Reads a file of images and the file of their labels, plain or compressed. Images have one
/// channel.
///
/// # Errors
/// As [`train_and_test`].
pub fn open(
    images_at: impl AsRef<Path>,
    labels_at: impl AsRef<Path>,
    classes: &[&str],
) -> Result<InMemory, DataError> {
    let (images_at, labels_at) = (images_at.as_ref(), labels_at.as_ref());
    let ([count, height, width], images) = read(images_at, "an IDX file of images")?;
    let ([label_count], labels) = read(labels_at, "an IDX file of labels")?;
    if count != label_count {
        return Err(DataError::Counts {
            images: count,
            images_at: images_at.display().to_string(),
            labels: label_count,
            labels_at: labels_at.display().to_string(),
        });
    }
    let labels: Vec<u32> = labels.into_iter().map(u32::from).collect();
    in_memory::check_labels(&labels, classes.len(), &labels_at.display().to_string())?;
    let classes = classes.iter().map(ToString::to_string).collect();
    InMemory::new([1, height, width], images, labels, classes)
}

/// The file itself or its compressed twin.
fn find(dir: &Path, name: &str) -> Result<PathBuf, DataError> {
    let plain = dir.join(name);
    let compressed = dir.join(format!("{name}.gz"));
    [plain, compressed]
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| DataError::Missing {
            path: dir.join(name),
            wanted: "it should be an IDX file; it may also end in .gz".to_owned(),
        })
}

/// The dimensions and the bytes of a file of unsigned bytes in `D` dimensions.
fn read<const D: usize>(
    path: &Path,
    format: &'static str,
) -> Result<([usize; D], Vec<u8>), DataError> {
    const UNSIGNED_BYTE: u8 = 0x08;
    let bytes = decompressed(path)?;
    let wrong = |reason: String| DataError::Format {
        path: path.to_owned(),
        format,
        reason,
    };
    let Some((&[zero, also_zero, kind, dimensions], mut rest)) = bytes.split_first_chunk() else {
        return Err(wrong(format!(
            "it has {} bytes, fewer than a magic number",
            bytes.len()
        )));
    };
    if [zero, also_zero, kind, dimensions] != [0, 0, UNSIGNED_BYTE, D as u8] {
        let found = u32::from_be_bytes([zero, also_zero, kind, dimensions]);
        return Err(wrong(format!(
            "its magic number is {found:#010x}, but unsigned bytes in {D} dimensions have \
             {:#010x}",
            u32::from_be_bytes([0, 0, UNSIGNED_BYTE, D as u8]),
        )));
    }
    let mut shape = [0; D];
    for side in &mut shape {
        let Some((number, behind)) = rest.split_first_chunk() else {
            return Err(wrong("it ends within its dimensions".to_owned()));
        };
        *side = u32::from_be_bytes(*number) as usize;
        rest = behind;
    }
    let expected = shape
        .iter()
        .try_fold(1_usize, |size, &side| size.checked_mul(side))
        .ok_or_else(|| wrong(format!("its dimensions are {shape:?}")))?;
    if rest.len() != expected {
        return Err(DataError::Length {
            path: path.to_owned(),
            expected,
            found: rest.len(),
            why: format!(" for its dimensions {shape:?}"),
        });
    }
    let header = bytes.len() - rest.len();
    let mut bytes = bytes;
    bytes.drain(..header);
    Ok((shape, bytes))
}

/// A file's contents; whether it is compressed is told by its first bytes.
fn decompressed(path: &Path) -> Result<Vec<u8>, DataError> {
    let read = |reader: &mut dyn Read| {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    };
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let bytes = read(&mut BufReader::new(file)).map_err(DataError::io("read", path))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        read(&mut MultiGzDecoder::new(&bytes[..])).map_err(DataError::io("decompress", path))
    } else {
        Ok(bytes)
    }
}

//! IDX files: MNIST, Fashion-MNIST and similar sets.
//!
//! A set is four files: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with
//! `t10k` for `train`. Some copies have a dot before `idx`. They may be compressed, as `.gz`. A
//! file is a magic number, its dimensions as big-endian 32-bit numbers, and bytes.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

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

/// Reads the training and the test set of a folder. Both are normalised by the training set's mean
/// and standard deviation.
///
/// # Errors
/// When a file is missing, cannot be read, is not an IDX file, or is shorter or longer than its
/// header says; when the numbers of images and labels differ; or when a label is not one of the
/// classes.
pub fn train_and_test(
    dir: impl AsRef<Path>,
    classes: &[&str],
) -> Result<(InMemory, InMemory), DataError> {
    let dir = dir.as_ref();
    let read = |set: &str| {
        open(
            find(dir, &format!("{set}-images"), "idx3-ubyte")?,
            find(dir, &format!("{set}-labels"), "idx1-ubyte")?,
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

/// Finds a file under one of its names: `name-kind`, `name.kind`, or one of them with `.gz`.
fn find(dir: &Path, name: &str, kind: &str) -> Result<PathBuf, DataError> {
    ["-", "."]
        .into_iter()
        .flat_map(|joint| ["", ".gz"].map(|end| dir.join(format!("{name}{joint}{kind}{end}"))))
        .find(|path| path.is_file())
        .ok_or_else(|| DataError::Missing {
            path: dir.join(format!("{name}-{kind}")),
            wanted: format!(
                "it should be an IDX file; its name may also be {name}.{kind}, and it may also end in .gz"
            ),
        })
}

/// Deflate expands one byte to at most this many.
const MOST_INFLATED: u64 = 1032;

/// The dimensions and the bytes of a file of unsigned bytes in `D` dimensions. The first bytes tell
/// whether it is compressed.
fn read<const D: usize>(
    path: &Path,
    format: &'static str,
) -> Result<([usize; D], Vec<u8>), DataError> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let length = file.metadata().map_err(DataError::io("read", path))?.len();
    let mut file = BufReader::new(file);
    let start = file.fill_buf().map_err(DataError::io("read", path))?;
    let is_compressed = start.starts_with(&[0x1f, 0x8b]);
    let contents = match is_compressed {
        true => array(
            MultiGzDecoder::new(file),
            MOST_INFLATED.saturating_mul(length),
        ),
        false => array(file, length),
    };
    contents.map_err(|refusal| match refusal {
        Refusal::Io(error) if is_compressed => DataError::io("decompress", path)(error),
        Refusal::Io(error) => DataError::io("read", path)(error),
        Refusal::Format(reason) => DataError::Format {
            path: path.to_owned(),
            format,
            reason,
        },
        Refusal::Length {
            expected,
            found,
            why,
        } => DataError::Length {
            path: path.to_owned(),
            expected,
            found,
            why,
        },
    })
}

/// Why an array cannot be read.
enum Refusal {
    Io(io::Error),
    Format(String),
    Length {
        expected: usize,
        found: usize,
        why: String,
    },
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads an array to its end, but no further than its dimensions say and at most `most` bytes.
fn array<const D: usize>(mut from: impl Read, most: u64) -> Result<([usize; D], Vec<u8>), Refusal> {
    const UNSIGNED_BYTE: u8 = 0x08;
    let mut header = Vec::new();
    let header_length = 4 + 4 * D as u64;
    from.by_ref().take(header_length).read_to_end(&mut header)?;
    let Some((&magic, sides)) = header.split_first_chunk::<4>() else {
        return Err(Refusal::Format(format!(
            "it has {} bytes, fewer than a magic number",
            header.len()
        )));
    };
    let expected = [0, 0, UNSIGNED_BYTE, D as u8];
    if magic != expected {
        return Err(Refusal::Format(format!(
            "its magic number is {:#010x}, but unsigned bytes in {D} dimensions have {:#010x}",
            u32::from_be_bytes(magic),
            u32::from_be_bytes(expected),
        )));
    }
    let (sides, _) = sides.as_chunks::<4>();
    let Ok(shape) = <[[u8; 4]; D]>::try_from(sides) else {
        return Err(Refusal::Format("it ends within its dimensions".to_owned()));
    };
    let shape = shape.map(|side| u32::from_be_bytes(side) as usize);
    let expected = shape
        .iter()
        .try_fold(1_usize, |size, &side| size.checked_mul(side))
        .ok_or_else(|| Refusal::Format(format!("its dimensions are {shape:?}")))?;
    if expected as u64 > most {
        return Err(Refusal::Format(format!(
            "its dimensions are {shape:?}, which is more than a file of its size can hold; \
             download it again"
        )));
    }
    let mut bytes = Vec::new();
    // Asks for one byte more, to see whether there is one.
    let data = expected as u64 + 1;
    from.take(data).read_to_end(&mut bytes)?;
    if bytes.len() > expected {
        return Err(Refusal::Format(format!(
            "it has more data than the {expected} bytes of its dimensions {shape:?}; download it \
             again"
        )));
    }
    if bytes.len() < expected {
        return Err(Refusal::Length {
            expected,
            found: bytes.len(),
            why: format!(" for its dimensions {shape:?}"),
        });
    }
    Ok((shape, bytes))
}

//! Named tensors in a file: safetensors, or PyTorch's own format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

#[cfg(feature = "pytorch")]
use super::torch::{self, Found, TorchFile};
use super::{NamedTensor, WeightsError, seal};
use crate::files;

/// The note that holds a checkpoint's state other than tensors, as JSON.
pub(crate) const CHECKPOINT: &str = "densenet";
/// The entry of a file's header that holds its notes.
const NOTES: &str = "__metadata__";
/// Bytes before the header, which hold its length.
const HEADER_LENGTH: usize = 8;

/// The tensors of a file, in memory and checked: every tensor lies within the file, and its shape
/// matches its bytes. The file's contents tell its format, whatever its name: safetensors, or the
/// formats of `torch.save` (`.pth`, `.pt`, `.bin`).
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    Safetensors(Safetensors),
    #[cfg(feature = "pytorch")]
    Torch(TorchFile),
}

#[derive(Debug)]
struct Safetensors {
    bytes: Vec<u8>,
    /// Where the tensors' bytes start.
    start: usize,
    metadata: Metadata,
}

impl Safetensors {
    fn read(bytes: Vec<u8>) -> Result<Self, (Vec<u8>, SafeTensorError)> {
        match SafeTensors::read_metadata(&bytes) {
            Ok((header, metadata)) => Ok(Self {
                bytes,
                start: HEADER_LENGTH + header,
                metadata,
            }),
            Err(error) => Err((bytes, error)),
        }
    }

    fn note(&self, key: &str) -> Option<&str> {
        let notes = self.metadata.metadata().as_ref()?;
        notes.get(key).map(String::as_str)
    }

    /// Whether its bytes are unchanged, if it has a checksum.
    fn is_whole(&self) -> bool {
        self.note(seal::NOTE).is_none() || seal::is_whole(&self.bytes, HEADER_LENGTH..self.start)
    }

    fn tensor(&self, name: &str) -> Option<(&TensorInfo, &[u8])> {
        let info = self.metadata.info(name)?;
        let (from, to) = info.data_offsets;
        let bytes = self.bytes.get(self.start + from..self.start + to)?;
        Some((info, bytes))
    }

    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let (info, bytes) = self.tensor(name)?;
        match info.dtype {
            Dtype::F64 => Some(elements(bytes, |b| f64::from_le_bytes(b) as f32)),
            Dtype::F32 => Some(elements(bytes, f32::from_le_bytes)),
            Dtype::F16 => Some(elements(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Some(elements(bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
            _ => None,
        }
    }

    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let (info, bytes) = self.tensor(name)?;
        (info.dtype == Dtype::I64).then(|| elements(bytes, i64::from_le_bytes))
    }
}

impl TensorFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is damaged or of another format, or when it was written by
    /// [`write`](Self::write) and has changed since.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let path = path.as_ref().to_path_buf();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(WeightsError::Read { path, source }),
        };
        let contents = match Safetensors::read(bytes) {
            Ok(own) if own.is_whole() => Contents::Safetensors(own),
            Ok(_) => return Err(WeightsError::Checksum { path }),
            // The first bytes of a pickle may be a valid length of a header.
            Err((bytes, source)) if bytes.get(HEADER_LENGTH) == Some(&b'{') => {
                return Err(WeightsError::Corrupt { path, source });
            }
            Err((bytes, source)) => return Self::read_torch(path, &bytes, source),
        };
        Ok(Self { path, contents })
    }

    /// Reads what is not a safetensors file.
    #[cfg(feature = "pytorch")]
    fn read_torch(
        path: PathBuf,
        bytes: &[u8],
        source: SafeTensorError,
    ) -> Result<Self, WeightsError> {
        if !torch::is_torch(bytes) {
            return Err(WeightsError::Corrupt { path, source });
        }
        match TorchFile::read(bytes) {
            Ok(file) => Ok(Self {
                path,
                contents: Contents::Torch(file),
            }),
            Err(source) => Err(WeightsError::Torch { path, source }),
        }
    }

    #[cfg(not(feature = "pytorch"))]
    fn read_torch(
        path: PathBuf,
        bytes: &[u8],
        source: SafeTensorError,
    ) -> Result<Self, WeightsError> {
        match bytes {
            [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => Err(WeightsError::NoTorch { path }),
            _ => Err(WeightsError::Corrupt { path, source }),
        }
    }

    /// The path it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the tensors of a PyTorch file were found; `None` for safetensors.
    #[cfg(feature = "pytorch")]
    pub fn found(&self) -> Option<&Found> {
        match &self.contents {
            Contents::Safetensors(_) => None,
            Contents::Torch(file) => Some(file.found()),
        }
    }

    /// Where the tensors were found, in words, if it is a PyTorch file.
    pub(super) fn origin(&self) -> Option<String> {
        match &self.contents {
            Contents::Safetensors(_) => None,
            #[cfg(feature = "pytorch")]
            Contents::Torch(file) => Some(file.found().to_string()),
        }
    }

    /// The names of the tensors: in the order of their bytes, or in that of PyTorch's state dict.
    pub fn names(&self) -> Vec<String> {
        match &self.contents {
            Contents::Safetensors(file) => file.metadata.offset_keys(),
            #[cfg(feature = "pytorch")]
            Contents::Torch(file) => file.names().map(str::to_string).collect(),
        }
    }

    /// The note under this key.
    pub fn note(&self, key: &str) -> Option<&str> {
        match &self.contents {
            Contents::Safetensors(file) => file.note(key),
            #[cfg(feature = "pytorch")]
            Contents::Torch(file) => file.notes().get(key).map(String::as_str),
        }
    }

    /// The notes whose keys begin with `densenet.`, except for the checksum.
    pub(super) fn own_notes(&self) -> BTreeMap<String, String> {
        let is_own = |key: &str| key.starts_with("densenet.") && key != seal::NOTE;
        let kept =
            |(key, note): (&String, &String)| is_own(key).then(|| (key.clone(), note.clone()));
        match &self.contents {
            Contents::Safetensors(file) => {
                let notes = file.metadata.metadata().iter().flatten();
                notes.filter_map(kept).collect()
            }
            #[cfg(feature = "pytorch")]
            Contents::Torch(file) => file.notes().iter().filter_map(kept).collect(),
        }
    }

    /// Whether the file has a checksum of all its bytes.
    #[cfg(feature = "train")]
    pub(crate) fn is_sealed(&self) -> bool {
        self.note(seal::NOTE).is_some()
    }

    /// The note that makes a file a checkpoint.
    pub(crate) fn checkpoint_note(&self) -> Option<&str> {
        self.note(CHECKPOINT)
    }

    /// Whether it is a checkpoint.
    pub(crate) fn is_checkpoint(&self) -> bool {
        self.checkpoint_note().is_some()
    }

    /// The shape of a tensor; `None` if the file has no tensor of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        match &self.contents {
            Contents::Safetensors(file) => {
                let info = file.metadata.info(name)?;
                Some(info.shape.as_slice())
            }
            #[cfg(feature = "pytorch")]
            Contents::Torch(file) => file.shape(name),
        }
    }

    /// The elements of a tensor, which must be `F64`, `F32`, `F16` or `BF16`.
    ///
    /// # Errors
    /// When there is no tensor of this name, or it has another element type.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let floats = match &self.contents {
            Contents::Safetensors(file) => file.floats(name),
            #[cfg(feature = "pytorch")]
            Contents::Torch(file) => file.floats(name),
        };
        floats.ok_or_else(|| self.unreadable(name, "F64, F32, F16 or BF16"))
    }

    /// The elements of a tensor, which must be `I64` (in a PyTorch file, any integers).
    ///
    /// # Errors
    /// When there is no tensor of this name, or it has another element type.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>, WeightsError> {
        let integers = match &self.contents {
            Contents::Safetensors(file) => file.integers(name),
            #[cfg(feature = "pytorch")]
            Contents::Torch(file) => file.integers(name),
        };
        integers.ok_or_else(|| self.unreadable(name, "I64"))
    }

    /// Writes tensors, with notes for the file's reader and a checksum of all bytes. The
    /// same tensors and notes give the same bytes.
    ///
    /// The file is written completely or not at all: the bytes go to a file beside it, which is then renamed.
    ///
    /// # Errors
    /// When a shape does not match its elements, or the file cannot be written.
    pub fn write<'a>(
        path: impl AsRef<Path>,
        tensors: impl IntoIterator<Item = NamedTensor<'a>>,
        notes: BTreeMap<String, String>,
    ) -> Result<(), WeightsError> {
        let path = path.as_ref();
        let views = tensors
            .into_iter()
            .map(|tensor| (tensor.name.clone(), tensor));
        let bytes = safetensors::serialize(views, None)
            // Writing does not check shapes against elements; reading the header back does.
            .and_then(|bytes| Ok((SafeTensors::read_metadata(&bytes)?.0, bytes)))
            .and_then(|(header, bytes)| annotate(&bytes, header, notes))
            .map_err(|source| WeightsError::Encode {
                path: path.to_path_buf(),
                source,
            })?;
        files::replace(path, &bytes).map_err(|source| WeightsError::Write {
            path: path.to_path_buf(),
            source,
        })
    }

    /// Writes tensors for `torch.load(.., weights_only=True)`, as [`write`](Self::write) does.
    /// Each part of the file has a checksum, which [`read`](Self::read) compares.
    ///
    /// # Errors
    /// When a shape does not match its elements, or the file cannot be written.
    #[cfg(feature = "pytorch")]
    pub fn write_torch<'a>(
        path: impl AsRef<Path>,
        tensors: impl IntoIterator<Item = NamedTensor<'a>>,
        notes: BTreeMap<String, String>,
    ) -> Result<(), WeightsError> {
        let path = path.as_ref();
        let tensors: Vec<_> = tensors.into_iter().collect();
        torch::state_dict(&tensors, &notes)
            .and_then(|bytes| files::replace(path, &bytes))
            .map_err(|source| WeightsError::Write {
                path: path.to_path_buf(),
                source,
            })
    }

    #[cfg(not(feature = "pytorch"))]
    pub(super) fn write_torch<'a>(
        path: impl AsRef<Path>,
        _: impl IntoIterator<Item = NamedTensor<'a>>,
        _: BTreeMap<String, String>,
    ) -> Result<(), WeightsError> {
        Err(WeightsError::NoTorch {
            path: path.as_ref().to_path_buf(),
        })
    }

    /// Why a tensor's elements cannot be read: it has another type, or it is missing.
    fn unreadable(&self, name: &str, expected: &'static str) -> WeightsError {
        let found = match &self.contents {
            Contents::Safetensors(file) => {
                file.metadata.info(name).map(|own| own.dtype.to_string())
            }
            #[cfg(feature = "pytorch")]
            Contents::Torch(file) => file.element_type(name).map(str::to_string),
        };
        let (path, name) = (self.path.clone(), name.to_string());
        match found {
            Some(found) => WeightsError::ElementType {
                path,
                name,
                found,
                expected,
            },
            None => WeightsError::NoTensor { path, name },
        }
    }
}

/// Splits bytes into elements of N bytes each.
fn elements<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (whole, _) = bytes.as_chunks::<N>();
    whole.iter().map(|&element| read(element)).collect()
}

/// Adds notes to a file whose header has this many bytes, and seals it. The safetensors crate would
/// write notes in an order that changes from call to call.
fn annotate(
    bytes: &[u8],
    header: usize,
    mut notes: BTreeMap<String, String>,
) -> Result<Vec<u8>, SafeTensorError> {
    notes.insert(seal::NOTE.to_string(), seal::BLANK.to_string());
    let notes = serde_json::to_string(&notes)?;
    let (before, rest) = bytes.split_at(HEADER_LENGTH + header);
    // The header is a JSON object; the notes go first.
    let tensors = before[HEADER_LENGTH..].trim_ascii();
    let tensors = tensors.strip_prefix(b"{").unwrap_or(tensors);
    let comma = if tensors == b"}" { "" } else { "," };
    let mut header = format!("{{\"{NOTES}\":{notes}{comma}").into_bytes();
    header.extend(tensors);
    header.resize(header.len().next_multiple_of(HEADER_LENGTH), b' ');
    let mut bytes = Vec::with_capacity(HEADER_LENGTH + header.len() + rest.len());
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(&header);
    bytes.extend(rest);
    seal::seal(&mut bytes, HEADER_LENGTH..HEADER_LENGTH + header.len());
    // Parsed as a reader does: the notes may be too long for a header.
    SafeTensors::read_metadata(&bytes)?;
    Ok(bytes)
}

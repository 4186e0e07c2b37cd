//! Named tensors in a safetensors file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError, SafeTensors, View};

use super::{WeightsError, seal};
use crate::files;

/// The note that holds a checkpoint's state other than tensors, as JSON.
pub(crate) const CHECKPOINT: &str = "densenet";
/// The note with the names of the classes, as a list in JSON.
const CLASSES: &str = "densenet.classes";
/// The entry of a file's header that holds its notes.
const NOTES: &str = "__metadata__";
/// Bytes before the header, which hold its length.
const HEADER_LENGTH: usize = 8;

/// The tensors of a safetensors file, in memory and checked: every tensor lies within the file, and
/// its shape matches its bytes.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where the tensors' bytes start.
    start: usize,
    metadata: Metadata,
}

impl TensorFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or is not a valid safetensors file, or when it was written by
    /// [`write`](Self::write) and has changed since.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let path = path.as_ref().to_path_buf();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(WeightsError::Read { path, source }),
        };
        let (header, metadata) = match SafeTensors::read_metadata(&bytes) {
            Ok(found) => found,
            Err(_) if is_pytorch(&bytes) => return Err(WeightsError::PyTorch { path }),
            Err(source) => return Err(WeightsError::Corrupt { path, source }),
        };
        let file = Self {
            path,
            bytes,
            start: HEADER_LENGTH + header,
            metadata,
        };
        if file.is_sealed() && !seal::is_whole(&file.bytes, HEADER_LENGTH..file.start) {
            return Err(WeightsError::Checksum { path: file.path });
        }
        Ok(file)
    }

    /// The path it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the tensors, in the order of their bytes.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// The note that the file's writer left under this key.
    pub fn note(&self, key: &str) -> Option<&str> {
        let notes = self.metadata.metadata().as_ref()?;
        notes.get(key).map(String::as_str)
    }

    /// The names of the classes, in the order of their labels; empty if the file does not list
    /// them. A checkpoint has those of its network, or else those of its data.
    ///
    /// # Errors
    /// When they are not a list of names.
    pub fn classes(&self) -> Result<Vec<String>, WeightsError> {
        /// Earlier checkpoints have them in their own note.
        #[derive(serde::Deserialize)]
        struct Checkpoint {
            #[serde(default)]
            classes: Vec<String>,
        }
        let found = match (self.note(CLASSES), self.checkpoint_note()) {
            (Some(note), _) => serde_json::from_str(note),
            (None, Some(note)) => {
                serde_json::from_str(note).map(|checkpoint: Checkpoint| checkpoint.classes)
            }
            (None, None) => Ok(Vec::new()),
        };
        found.map_err(|source| WeightsError::Classes {
            path: self.path.clone(),
            source,
        })
    }

    /// Whether the file has a checksum of all its bytes.
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
        self.metadata.info(name).map(|info| info.shape.as_slice())
    }

    /// The elements of a tensor, which must be `F32`, `F16` or `BF16`.
    ///
    /// # Errors
    /// When there is no tensor of this name, or it has another element type.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let (info, bytes) = self.tensor(name)?;
        match info.dtype {
            Dtype::F32 => Ok(elements(bytes, f32::from_le_bytes)),
            Dtype::F16 => Ok(elements(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Ok(elements(bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
            other => Err(self.element_type(name, other, "F32, F16 or BF16")),
        }
    }

    /// The elements of a tensor, which must be `I64`.
    ///
    /// # Errors
    /// When there is no tensor of this name, or it has another element type.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>, WeightsError> {
        let (info, bytes) = self.tensor(name)?;
        match info.dtype {
            Dtype::I64 => Ok(elements(bytes, i64::from_le_bytes)),
            other => Err(self.element_type(name, other, "I64")),
        }
    }

    /// Writes tensors as `F32`, with notes for the file's reader and a checksum of all bytes. The
    /// same tensors and notes give the same bytes.
    ///
    /// The file appears at once or not at all: the bytes go to a file beside it, which is then
    /// renamed.
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

    fn tensor(&self, name: &str) -> Result<(&TensorInfo, &[u8]), WeightsError> {
        let found = self.metadata.info(name).and_then(|info| {
            let (from, to) = info.data_offsets;
            let bytes = self.bytes.get(self.start + from..self.start + to)?;
            Some((info, bytes))
        });
        found.ok_or_else(|| WeightsError::NoTensor {
            path: self.path.clone(),
            name: name.to_string(),
        })
    }

    fn element_type(&self, name: &str, found: Dtype, expected: &'static str) -> WeightsError {
        WeightsError::ElementType {
            path: self.path.clone(),
            name: name.to_string(),
            found: found.to_string(),
            expected,
        }
    }
}

/// The notes of a file about these classes; empty if they have no names.
pub(crate) fn notes_of_classes(names: &[impl AsRef<str>]) -> BTreeMap<String, String> {
    if names.is_empty() {
        return BTreeMap::new();
    }
    let names: serde_json::Value = names.iter().map(AsRef::as_ref).collect();
    BTreeMap::from([(CLASSES.to_string(), names.to_string())])
}

/// Whether these bytes begin like a file written by `torch.save`: a zip, or a pickle of protocol 2
/// to 5.
fn is_pytorch(bytes: &[u8]) -> bool {
    matches!(bytes, [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..])
}

/// A tensor on its way to a file.
#[derive(Clone, Debug)]
pub struct NamedTensor<'a> {
    name: String,
    shape: Vec<usize>,
    values: &'a [f32],
}

impl<'a> NamedTensor<'a> {
    /// A tensor with its elements, last dimension innermost.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>, values: &'a [f32]) -> Self {
        Self {
            name: name.into(),
            shape: shape.into(),
            values,
        }
    }
}

impl View for NamedTensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
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
    // Parsed as a reader will parse it: the notes may be too long for a header.
    SafeTensors::read_metadata(&bytes)?;
    Ok(bytes)
}

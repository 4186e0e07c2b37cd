//! Errors of reading, writing and moving weights.

use std::fmt;
use std::path::PathBuf;

/// The number of names of a list that are printed; the rest are only counted.
const LISTED: usize = 8;

/// Errors of reading, writing and moving weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file could not be written; the old one is unchanged.
    #[error(
        "cannot write {path}: {source}; the old file, if any, is unchanged; free some space, or write to another folder",
        path = .path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is in PyTorch's own format, but cannot be used.
    #[cfg(feature = "pytorch")]
    #[error("{path} cannot be read as a PyTorch file: {source}", path = .path.display())]
    Torch {
        /// The file.
        path: PathBuf,
        /// The reason, and what to do.
        source: super::TorchError,
    },
    /// The file is in PyTorch's own format, which this program was built without.
    #[cfg(not(feature = "pytorch"))]
    #[error(
        "{path} is a PyTorch file, and this program was built without support for them; turn on \
            the feature `pytorch` of densenet-runtime",
        path = .path.display()
    )]
    NoTorch {
        /// The file.
        path: PathBuf,
    },
    /// The bytes are not those of a file of weights.
    #[error("{path} is damaged, or not a file of weights (safetensors or PyTorch's): {source}", path = .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with the bytes.
        source: safetensors::SafeTensorError,
    },
    /// The file has changed since it was written.
    #[error(
        "{path} is damaged: its bytes have changed since they were written (the checksum \
            differs); use an older copy. If it was changed on purpose, write it without the note \
            `{note}`",
        path = .path.display(), note = super::seal::NOTE
    )]
    Checksum {
        /// The file.
        path: PathBuf,
    },
    /// The tensors do not make a safetensors file.
    #[error("cannot write {path}: {source}", path = .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What is wrong with the tensors.
        source: safetensors::SafeTensorError,
    },
    /// The file has no tensor of this name.
    #[error("{path} has no tensor `{name}`", path = .path.display())]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A tensor's element type cannot be used here.
    #[error("tensor `{name}` in {path} is {found}; expected {expected}", path = .path.display())]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its element type.
        found: String,
        /// The element types that can be read.
        expected: &'static str,
    },
    /// A tensor holds a number that no trained network has, such as NaN.
    #[error(
        "tensor `{name}` in {path} holds {found} (element {index}); {why}: use weights from before training diverged, or convert them again",
        path = .path.display()
    )]
    Number {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The index of the first such element.
        index: usize,
        /// The element.
        found: f32,
        /// Why it is refused.
        why: &'static str,
    },
    /// A note in the file is malformed.
    #[error("{path} has a note `{note}` that cannot be read: {reason}; write it again, or without the note", path = .path.display())]
    Note {
        /// The file.
        path: PathBuf,
        /// The note's name.
        note: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of weights has an unknown extension.
    #[error(
        "cannot tell the format of {path} by its name; use the extension .safetensors, or .pth, \
            .pt or .bin for PyTorch",
        path = .path.display()
    )]
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// A file of ONNX has another extension.
    #[error(
        "{path} does not end in .onnx; choose a name that does, so that no other file is replaced",
        path = .path.display()
    )]
    OnnxName {
        /// The file.
        path: PathBuf,
    },
    /// A file of ONNX would be too large.
    #[error(
        "cannot write {path}: it would have {bytes} bytes or more, and ONNX files are limited to \
            2 GiB; f16 takes half the space of f32, and safetensors have no such limit",
        path = .path.display()
    )]
    OnnxSize {
        /// The file.
        path: PathBuf,
        /// The bytes of its tensors.
        bytes: u64,
    },
    /// A number is too large for f16.
    #[error("cannot write {path}: `{name}` holds {found}, and the largest f16 is 65504; write it \
        in f32", path = .path.display())]
    BeyondF16 {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The number.
        found: f32,
    },
    /// The file belongs to a network with other classes.
    #[error(
        "{path} belongs to a network with other classes: {difference}; use the weights of a \
            network with these classes, or load all but the classifier (`features_only`, \
            `--features-only`, `transplant_features`)",
        path = .path.display()
    )]
    OtherClasses {
        /// The file.
        path: PathBuf,
        /// The difference.
        difference: String,
    },
    /// The file's tensors are not those of the network.
    #[error("{path} does not fit the network: {misfit}", path = .path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// Every difference.
        misfit: Misfit,
    },
    /// The file's tensors are not those of a DenseNet.
    #[error(
        "the shapes in {path} are not those of a DenseNet: {why}; use the weights of one, or name \
            the network",
        path = .path.display()
    )]
    NoNetwork {
        /// The file.
        path: PathBuf,
        /// The first tensor that does not fit.
        why: String,
    },
    /// The network that the shapes give does not take pictures of this size.
    #[error(
        "the network in {path} takes no pictures of this size: {why}; give another one (`--input`)",
        path = .path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A state does not have the size of the plan or the model.
    #[error(
        "the state has {found} {what}, but the network has {expected}; it belongs to another network"
    )]
    Length {
        /// Parameters or running statistics.
        what: &'static str,
        /// The network's number of them.
        expected: usize,
        /// The state's number of them.
        found: usize,
    },
    /// A tensor of the model is a view: its elements share memory, or are out of order.
    #[error(
        "a tensor of shape {shape:?} in the model is a broadcast or permuted view; assign one with memory of its own"
    )]
    View {
        /// The tensor's dimensions.
        shape: Vec<usize>,
    },
}

/// Every difference between a file's tensors and a network's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misfit {
    /// Tensors that only the network has.
    pub missing: Vec<String>,
    /// Tensors that only the file has.
    pub unexpected: Vec<String>,
    /// Tensors whose shapes differ.
    pub misshapen: Vec<Misshapen>,
    /// What to do, where that is known.
    pub advice: Option<&'static str>,
}

/// A tensor whose shape in the file is not the network's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misshapen {
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file.
    pub found: Vec<usize>,
    /// Its shape in the network.
    pub expected: Vec<usize>,
}

impl Misfit {
    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.missing.is_empty() {
            parts.push(list("missing", self.missing.iter()));
        }
        if !self.unexpected.is_empty() {
            parts.push(list("unexpected", self.unexpected.iter()));
        }
        if !self.misshapen.is_empty() {
            parts.push(list("of the wrong shape", self.misshapen.iter()));
        }
        parts.extend(self.advice.map(str::to_string));
        f.write_str(&parts.join("; "))
    }
}

impl fmt::Display for Misshapen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            found,
            expected,
        } = self;
        write!(f, "{name} (found {found:?}, expected {expected:?})")
    }
}

/// `missing (12): a, b, c, and 9 more`.
pub(super) fn list<T: fmt::Display>(what: &str, items: impl ExactSizeIterator<Item = T>) -> String {
    let count = items.len();
    let names: Vec<String> = items.take(LISTED).map(|item| item.to_string()).collect();
    let more = match count - names.len() {
        0 => String::new(),
        rest => format!(", and {rest} more"),
    };
    format!("{what} ({count}): {}{more}", names.join(", "))
}

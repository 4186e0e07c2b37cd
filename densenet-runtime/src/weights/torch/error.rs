//! Why a PyTorch file cannot be used.

use std::borrow::Cow;

/// Why a file that begins like one of `torch.save` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// The bytes are not those of a whole file.
    #[error("{0}; it is damaged or truncated: copy or download it again")]
    Damaged(Cow<'static, str>),
    /// The file is sound, but has other contents.
    #[error("{0}")]
    Other(&'static str),
    /// The file takes more memory than weights need.
    #[error(
        "{0}; weights need far less: if you trust the file, load it in Python and save its state_dict() again"
    )]
    TooLarge(Cow<'static, str>),
    /// A tensor cannot be read.
    #[error("its tensor `{name}` cannot be read: {why}")]
    BadTensor {
        /// Its name.
        name: String,
        /// The reason, and what to do.
        why: &'static str,
    },
    /// The file has no tensors with names.
    #[error("it holds no tensors by name ({0}); save a model's state_dict()")]
    NoTensors(String),
}

impl TorchError {
    /// Bytes that are not those of a whole file.
    pub(super) const fn damaged(what: &'static str) -> Self {
        Self::Damaged(Cow::Borrowed(what))
    }

    /// A file that takes too much memory.
    pub(super) const fn too_large(what: &'static str) -> Self {
        Self::TooLarge(Cow::Borrowed(what))
    }
}

impl From<zip::result::ZipError> for TorchError {
    fn from(error: zip::result::ZipError) -> Self {
        Self::Damaged(format!("its zip cannot be read: {error}").into())
    }
}

impl From<std::io::Error> for TorchError {
    fn from(error: std::io::Error) -> Self {
        Self::Damaged(format!("its parts cannot be read: {error}").into())
    }
}

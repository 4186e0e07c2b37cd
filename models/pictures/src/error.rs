//! The errors of drawn pictures.

use std::io;
use std::path::PathBuf;

/// Why pictures could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PicturesError {
    /// The system could not read or write.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried, such as "read".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The requested pictures cannot be drawn.
    #[error("{0}")]
    Options(String),
    /// The folder holds something else.
    #[error("{path} {found}; remove it or choose another folder", path = .path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// What was found.
        found: String,
    },
}

impl PicturesError {
    /// For `map_err`: adds the path and what was tried to the system's error.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

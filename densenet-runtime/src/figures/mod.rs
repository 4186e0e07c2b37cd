//! The paper's figures, from networks of one's own.
//!
//! The curves of a run (paper, Fig. 4) are drawn by [`train::Curves`](crate::train::Curves).

mod efficiency;
mod heat;
mod reuse;
pub(crate) mod style;

pub use efficiency::{Efficiency, Measured};
pub use reuse::{BlockReuse, FeatureReuse};

/// A picture that could not be drawn or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw {}: {reason}", .path.display())]
pub struct DrawError {
    /// The picture's file.
    pub path: std::path::PathBuf,
    /// Why.
    pub reason: String,
}

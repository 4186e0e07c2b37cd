//! The paper's figures, drawn from your own networks, and class maps.
//!
//! The curves of a run (paper, Fig. 4) are drawn by [`train::Curves`](crate::train::Curves).

mod class_maps;
mod efficiency;
mod reuse;
pub(crate) mod style;

pub use class_maps::ClassMaps;
pub use efficiency::{Efficiency, Measured};
pub use reuse::{BlockReuse, FeatureReuse};

/// A picture that could not be drawn or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw {}: {reason}", .path.display())]
pub struct DrawError {
    /// The file.
    pub path: std::path::PathBuf,
    /// The reason.
    pub reason: String,
}

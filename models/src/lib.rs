//! The networks of "Densely Connected Convolutional Networks" (Huang, Liu, van der Maaten,
//! Weinberger; arXiv 1608.06993), each one `densenet!`.
//!
//! ```
//! use densenet_models::DenseNet121;
//! use densenet_runtime::plan::Recompute;
//!
//! assert_eq!(DenseNet121::PARAMETERS, 7_978_856);
//! let gib = DenseNet121::training_bytes(64, Recompute::Nothing) >> 30;
//! assert!(gib < 4);
//! ```

mod cifar;
mod dropout;
mod fashion;
mod imagenet;
mod registry;
pub mod shell;

pub use cifar::*;
pub use dropout::*;
pub use fashion::*;
pub use imagenet::*;
pub use registry::{PRESETS, Preset, UnknownPreset, preset};

//! The CPU executor.
//!
//! From the outside in: [`CpuExecutor`] owns a training state and runs a `pass`, the stages in a
//! row; a `stage` runs convolutions (`conv`) over whole buffers, which divide the pixels among
//! the threads of the `engine` and run `kernel`s over tiles that stay in the cache.
//! [`Frozen`] is a form of its own for inference.

mod activations;
pub(crate) mod conv;
pub(crate) mod engine;
mod executor;
mod frozen;
pub(crate) mod kernel;
pub(crate) mod layout;
mod memory;
mod pass;
pub(crate) mod stage;
mod team;
mod threads;

pub use crate::plan::{Precision, UnknownPrecision};
pub use executor::{CpuExecutor, CpuOptions};
pub use frozen::{Frozen, FrozenOptions};
pub use kernel::simd::Level;
#[cfg(feature = "data")]
pub(crate) use kernel::simd::{Kernel, Simd};
pub(crate) use threads::own_cores;
pub use threads::threads;

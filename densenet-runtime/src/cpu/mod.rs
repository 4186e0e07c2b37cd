//! The CPU executor, and the frozen form for inference.
//!
//! The computation is in a crate of its own, `densenet-cpu`, which needs only the plan: the stages,
//! their convolutions, and kernels over tiles that stay in the cache. This module implements the
//! contract: [`CpuExecutor`] owns a training state, [`Frozen`] the packed weights, and both check
//! their input.

mod descent;
mod executor;
mod frozen;

pub use crate::plan::{Precision, UnknownPrecision};
pub use densenet_cpu::threads::threads;
pub use densenet_cpu::{FrozenOptions, Level};
pub use executor::{CpuExecutor, CpuOptions};
pub use frozen::Frozen;

//! The CPU code of DenseNets: stages, convolutions and kernels.
//!
//! From the outside in: a [`pass`] runs the stages in order; a [`stage`] runs convolutions
//! ([`conv`]) over whole buffers; they divide the pixels among the threads of the [`engine`], which
//! run [`kernel`]s over tiles that stay in the cache. [`frozen`] is a separate form for inference.
//!
//! This crate needs only the plan, so that it builds while dfdx does. It is a part of
//! [densenet-runtime](https://docs.rs/densenet-runtime), whose executor checks its input before it
//! calls this crate. Only what densenet-runtime re-exports is meant for users; the hidden modules
//! may change in any version.

#[doc(hidden)]
pub mod activations;
#[doc(hidden)]
pub mod conv;
#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod frozen;
#[doc(hidden)]
pub mod kernel;
#[doc(hidden)]
pub mod layout;
#[doc(hidden)]
pub mod loss;
#[doc(hidden)]
pub mod memory;
#[doc(hidden)]
pub mod pass;
#[doc(hidden)]
pub mod stage;
mod team;
#[doc(hidden)]
pub mod threads;

pub use frozen::FrozenOptions;
pub use kernel::simd::Level;

/// The `opt-level` that this crate was compiled with.
pub const OPT_LEVEL: &str = env!("DENSENET_CPU_OPT_LEVEL");

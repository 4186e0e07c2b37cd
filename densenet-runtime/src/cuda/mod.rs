//! The CUDA executor: the same plan and arithmetic as the CPU's, on a GPU.
//!
//! Building needs no CUDA. The driver and its run-time compiler (NVRTC) are looked for when a
//! device is asked for; kernels are CUDA C++ (`kernels/`, one family a file), compiled for the
//! card at hand with the plan's shapes as constants and cached on disk.
//!
//! From the outside in: [`Executor`] owns a training state and runs `network`, which launches the
//! kernels of all stages in a row; `program` says with which constants they are compiled,
//! `compile` compiles them; `buffers` lists the buffers and `arena` places them in one allocation;
//! `driver` is the only module that talks to CUDA, and the only one with unsafe code.
//!
//! Not done yet: nothing was tuned, or timed, on a card.

mod arena;
mod buffers;
mod compile;
mod cost;
mod driver;
mod error;
mod executor;
mod feed;
mod network;
mod program;
mod ranks;
mod slices;
mod target;
mod tiles;

pub use arena::Placement;
pub use compile::Cache;
pub use cost::{Card, Eager, Launch, Roof, cards, eager, launches};
pub use driver::{Device, is_available};
pub use error::CudaError;
pub use executor::{Executor, Options};
pub use program::{Program, programs};

//! The CUDA executor: the same plan and arithmetic as the CPU's, on a GPU.
//!
//! Building needs no CUDA. The driver and its run-time compiler (NVRTC) are loaded when a device is
//! opened. Kernels are compiled for the card with the plan's shapes as constants, and cached on
//! disk.
//!
//! From the outside in: [`CudaExecutor`] owns a training state and runs a `pass`, which goes
//! through the stages, forward and backward. [`Frozen`] owns the numbers of inference, and runs the
//! forward part. `stage` has a room for each kind of stage, with its kernels (CUDA C++), the
//! constants that they are compiled with, its launches and their traffic. Below them are the rooms
//! of a layer's convolutions (`conv`) and of the kernels that all stages use (`kernel`). `launch`
//! has the state that launches share, `program` compiles, and `memory` lays out the buffers.
//! `driver` is the only module that talks to CUDA, and the only one with unsafe code.

mod conv;
mod driver;
mod error;
mod executor;
mod feed;
mod frozen;
mod kernel;
mod kernels;
mod launch;
mod memory;
mod pass;
mod program;
mod reducer;
#[cfg(feature = "roofline")]
mod roofline;
mod stage;
mod target;
#[cfg(feature = "roofline")]
mod traffic;

pub use driver::{CudaDevice, is_available};
pub use error::CudaError;
pub use executor::{CudaExecutor, CudaOptions};
pub use frozen::{Frozen, FrozenOptions};
pub use kernels::{Program, programs};
pub use memory::Placement;
pub use program::Cache;
#[cfg(feature = "roofline")]
pub use roofline::{
    Argument, Card, Eager, Launch, Listed, Listing, Roof, Value, cards, eager, everything,
    launches, launches_towards, launches_with_groups, listing,
};

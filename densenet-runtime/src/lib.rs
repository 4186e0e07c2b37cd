//! What `densenet!` networks run on.

mod classes;
pub mod console;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "data")]
pub mod data;
mod device;
mod executor;
#[cfg(feature = "figures")]
pub mod figures;
mod files;
mod network;
pub mod nn;
pub mod parallel;
#[cfg(feature = "train")]
pub mod train;
pub mod weights;

pub use densenet_macros::densenet;
pub use densenet_plan as plan;
pub use device::{BestDevice, Device, DeviceChoice, UnknownDevice};
pub use dfdx;
pub use executor::{Arena, Batch, Executor, ExecutorError, Outcome, Pending, Pixels, Sgd, Step};
pub use network::Network;

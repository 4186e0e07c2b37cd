//! What most programs need: `use densenet_runtime::prelude::*;`.
//!
//! The network and its traits, data, training, and the parts of dfdx that build and run a module.
//! Everything else is imported from its module.

pub use dfdx::prelude::{BuildModule, Const, Cpu, DeviceBuildExt, Module, ModuleMut, Tensor};

pub use crate::cpu::FrozenOptions;
#[cfg(feature = "data")]
pub use crate::data::{ImageFolder, Loader, OnBroken};
pub use crate::parallel::Ranks;
#[cfg(feature = "train")]
pub use crate::train::{Config, Ending, Fit, Interrupt, RunFolder, Schedule, Trainer};
pub use crate::{Device, DeviceChoice, MapsOf, Network, Outputs, Pixels, densenet, say, tell};

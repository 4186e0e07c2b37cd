//! What most programs use: `use densenet_runtime::prelude::*;`.
//!
//! The network and its traits, data, training, and of dfdx what builds and runs a module. All else
//! stays behind the names of its modules.

pub use dfdx::prelude::{BuildModule, Const, Cpu, DeviceBuildExt, Module, ModuleMut, Tensor};

pub use crate::cpu::FrozenOptions;
#[cfg(feature = "data")]
pub use crate::data::{ImageFolder, Loader, OnBroken};
pub use crate::parallel::Ranks;
#[cfg(feature = "train")]
pub use crate::train::{Config, Ending, Fit, Interrupt, RunFolder, Schedule, Trainer};
pub use crate::{Device, DeviceChoice, Network, Pixels, densenet, say, tell};

//! Weights in files, and weights in models.
//!
//! A [`State`] is a network's whole state, in two arenas: trainable parameters and running
//! statistics, both in the order of [`Plan::parameters`](crate::plan::Plan::parameters). That is
//! also the order in which dfdx visits a model's tensors and in which an
//! [`Executor`](crate::Executor) keeps them, so a state moves between a file, a model and an
//! executor without code for any particular network.
//!
//! Files are safetensors under torchvision's names. A `.pth` file from torchvision is a pickle in a
//! zip. Convert it once, with Python:
//!
//! ```python
//! import torch; from safetensors.torch import save_file
//! save_file(torch.load("densenet201.pth", weights_only=True), "densenet201.safetensors")
//! ```
//!
//! ```
//! use densenet_runtime::{plan::Plan, weights::{State, WeightsError}};
//!
//! fn load(plan: &Plan) -> Result<State, WeightsError> {
//!     State::read(plan, "densenet201.safetensors")
//! }
//! ```

mod error;
mod file;
mod model;
pub(crate) mod names;
mod seal;
mod state;
mod tensors;

pub use error::{Misfit, Misshapen, WeightsError};
#[cfg(feature = "train")]
pub(crate) use file::CHECKPOINT;
pub(crate) use file::notes_of_classes;
pub use file::{NamedTensor, TensorFile};
pub use state::{State, Unexpected};
#[cfg(feature = "train")]
pub(crate) use state::{momentum, trained};
pub(crate) use tensors::each_tensor_mut;
pub use tensors::{AnyTensor, GradientSlot, Visited, each_tensor};

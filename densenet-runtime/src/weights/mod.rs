//! Weights in files, and weights in models.
//!
//! A [`State`] is a network's whole state, in two arenas: trainable parameters and running
//! statistics, both in the order of [`Plan::parameters`](crate::plan::Plan::parameters). That is
//! also the order in which dfdx visits a model's tensors and in which an
//! [`Executor`](crate::Executor) keeps them, so a state moves between a file, a model and an
//! executor without code for any particular network.
//!
//! Files are written as safetensors under torchvision's names. What `torch.save` writes is read as
//! well (`.pth`, `.pt`, `.bin`; the feature `pytorch`): state dicts, checkpoints that contain one,
//! whole modules. Nothing in such a file is executed.
//!
//! ```
//! use densenet_runtime::{plan::Plan, weights::{State, WeightsError}};
//!
//! fn load(plan: &Plan) -> Result<State, WeightsError> {
//!     State::read(plan, "densenet201-c1103571.pth")
//! }
//! ```

mod error;
mod file;
mod model;
pub(crate) mod names;
mod seal;
mod state;
mod tensors;
#[cfg(feature = "pytorch")]
mod torch;

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
#[cfg(feature = "pytorch")]
pub use torch::{Found, TorchError};

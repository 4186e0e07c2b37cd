//! Weights in files, and weights in models.
//!
//! A [`State`] is a network's whole state, in two arenas: trainable parameters and running
//! statistics, both in the order of [`Plan::parameters`](crate::plan::Plan::parameters). That is
//! also the order in which dfdx visits a model's tensors and in which an
//! [`Executor`](crate::Executor) keeps them, so a state moves between a file, a model and an
//! executor without code for any particular network.
//!
//! Files are written as safetensors under torchvision's names, with [`Notes`] beside the tensors.
//! Files of `torch.save` are read as well (`.pth`, `.pt`, `.bin`; the feature `pytorch`): state
//! dicts, checkpoints that contain one, whole modules. Nothing in such a file is executed.
//! [`State::load`] understands the names of timm, MONAI, torchxrayvision and CheXNet, and reports
//! which tensors it used. [`plan_of`] recognises the network by its shapes, and [`convert`] writes
//! it in another format. [`onnx::write`] writes a file for programs that know nothing of DenseNets.
//!
//! ```
//! use densenet_runtime::{plan::Plan, weights::{State, WeightsError}};
//!
//! fn load(plan: &Plan) -> Result<State, WeightsError> {
//!     State::read(plan, "densenet201-c1103571.pth")
//! }
//! ```

mod convert;
mod error;
mod file;
mod load;
mod model;
mod named;
pub(crate) mod names;
mod notes;
pub mod onnx;
mod seal;
mod shapes;
mod state;
mod tensors;
#[cfg(feature = "pytorch")]
mod torch;

pub use convert::{check_name, convert, convert_to_f16, copy};
pub use error::{Misfit, Misshapen, WeightsError};
#[cfg(feature = "train")]
pub(crate) use file::CHECKPOINT;
pub use file::TensorFile;
pub use load::{LoadOptions, LoadReport, Unexpected};
pub use named::NamedTensor;
pub use notes::Notes;
pub use shapes::plan_of;
pub use state::State;
#[cfg(feature = "train")]
pub(crate) use state::{momentum, of_checkpoint};
pub use tensors::{AnyTensor, GradientSlot, Visited, each_tensor};
pub(crate) use tensors::{each_tensor_mut, is_view};
#[cfg(feature = "pytorch")]
pub use torch::{Found, TorchError};

//! Typed layers over dfdx tensors, and the operations between them.
//!
//! Every parameter is a dfdx [`Tensor`](dfdx::tensor::Tensor) whose dimensions are `Const`, in
//! PyTorch's layout. The structs hold parameters; generated code composes them into blocks,
//! transitions and networks, and implements `Module` for those with [`infer`] and [`train`].

mod classifier;
mod conv;
mod error;
mod initial;
mod input;
mod layer;
mod loss;
pub(crate) mod network;
mod norm;
mod op;
mod slots;
mod stage;
mod transplant;

pub use crate::plan::Head;
pub use crate::plan::norm::{EPSILON, MOMENTUM};
pub use classifier::Classifier;
pub use conv::Conv;
pub use error::ForwardError;
pub use input::{Batched, Taped, Untaped};
pub use layer::{BottleneckLayer, PlainLayer};
pub use loss::cross_entropy;
pub use norm::BatchNorm;
pub use op::{Stage, infer, infer_head, train, train_head, trainable};
pub use transplant::{BlockShapes, SameShapes, StemShapes, TransitionShapes, Transplant};

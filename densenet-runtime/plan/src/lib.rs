//! From a DenseNet spec to its plan: plain data and exact arithmetic.
//!
//! A DenseNet (Huang et al., arXiv 1608.06993) is known in full before it runs. [`Spec`] is what a
//! person writes; [`Plan`] is what follows from it: the shape of every feature map, the parameters
//! in order, the multiply-adds, the bytes of a training step. The macro makes the plan at compile
//! time and writes it into the generated code; the executors run it. Both use this crate, so they
//! cannot disagree.

mod dropout;
mod error;
mod footprint;
mod frozen;
mod inference;
pub mod norm;
mod outcome;
mod parameter;
mod pixels;
mod plan;
mod precision;
mod ratio;
mod spec;
mod targets;
mod tensors;

pub use dropout::{Dropout, DropoutSites};
pub use error::{PlanError, TooSmall};
pub use footprint::{Buffers, Footprint, Recompute, Training};
pub use frozen::{Frozen, FrozenTensors};
pub use inference::{Inference, MapsOf, Outputs};
pub use outcome::Outcome;
pub use parameter::{Parameter, Role};
pub use pixels::Pixels;
pub use plan::{Block, Head, Layer, Plan, Stem, StemKind, Transition};
pub use precision::{Precision, UnknownPrecision};
pub use ratio::Ratio;
pub use spec::{BlockSpec, Spec};
pub use targets::{LossWeights, Targets};
pub use tensors::{
    ConvTensor, HeadTensors, LayerTensors, NormTensors, Span, StemTensors, Tensors,
    TransitionTensors,
};

//! What every generated network has in common.

use dfdx::prelude::{BuildModule, Cpu, TensorCollection};

use crate::plan::Plan;

/// A network that `densenet!` made. The macro implements it.
pub trait Network: TensorCollection<f32, Cpu, To<f32, Cpu> = Self> + BuildModule<Cpu, f32> {
    /// The name of the type.
    const NAME: &'static str;
    /// The shapes of its stages.
    const PLAN: Plan;
}

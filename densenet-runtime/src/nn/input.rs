//! The inputs of a generated network's stages: batches of feature maps, with or without a tape.
//!
//! Generated `Module` impls are bounded by these traits, so that the compile error for a wrong
//! tensor is in plain words.

use dfdx::prelude::*;

/// A shape whose first dimension is the batch.
pub trait Batched: Shape {
    /// The batch's dimension: `Const<B>` or `usize`.
    type Batch: Dim;

    /// The batch's dimension.
    fn batch(&self) -> Self::Batch;
}

macro_rules! batched {
    ($($rest:ident),*) => {
        impl<B: Dim, $($rest: Dim),*> Batched for (B, $($rest,)*) {
            type Batch = B;

            fn batch(&self) -> B {
                self.0
            }
        }
    };
}

// Networks take four dimensions. With the others here, a tensor of another rank is refused only for
// its shape, and not also for having no batch.
batched!();
batched!(D2);
batched!(D2, D3);
batched!(D2, D3, D4);
batched!(D2, D3, D4, D5);
batched!(D2, D3, D4, D5, D6);

/// The absence of a tape, for `forward`: inference with running statistics.
#[diagnostic::on_unimplemented(
    message = "`forward` is for inference, and this tensor records on a tape",
    label = "a tensor with a tape",
    note = "to train, call `forward_mut`; for inference, pass the tensor without `trace(..)`"
)]
pub trait Untaped: Tape<f32, Cpu> {}

impl Untaped for NoneTape {}

/// A tape to record on, for `forward_mut`: training with a batch's statistics.
#[diagnostic::on_unimplemented(
    message = "`forward_mut` is for training, and this tensor has no tape to record on",
    label = "a tensor without a tape",
    note = "to train, pass `x.trace(gradients)`; for inference, call `forward`"
)]
pub trait Taped: Tape<f32, Cpu> {}

impl Taped for OwnedTape<f32, Cpu> {}

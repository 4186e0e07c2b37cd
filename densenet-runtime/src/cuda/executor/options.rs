//! How an executor is made.

use super::super::kernels::scratch;
use super::super::memory::{Layout, Placement, Slots, Stored};
use super::super::program::Cache;
use crate::plan::{Plan, Precision, Recompute};

/// How a [`CudaExecutor`](super::CudaExecutor) is made.
#[derive(Clone, Debug)]
pub struct CudaOptions {
    /// The largest batch.
    pub batch: usize,
    /// In bf16, maps and their gradients are stored in bfloat16, and so are the operands of
    /// products, which the tensor cores multiply. Parameters and their gradients, momentum,
    /// statistics and sums are f32 in either case.
    pub precision: Precision,
    /// What the backward pass computes again.
    pub recompute: Recompute,
    /// Where compiled kernels are kept.
    pub cache: Cache,
    /// Records a pass over a full batch once, and replays it as a CUDA graph.
    pub graphs: bool,
    /// How buffers lie in memory.
    pub placement: Placement,
}

impl CudaOptions {
    /// For a batch: f32, nothing recomputed, graphs, kernels kept in the user's cache folder.
    pub fn for_batch(batch: usize) -> Self {
        Self {
            batch,
            precision: Precision::F32,
            recompute: Recompute::Nothing,
            cache: Cache::User,
            graphs: true,
            placement: Placement::Together,
        }
    }

    /// Bytes that an executor of a plan allocates on its device, without one at hand. Compiled
    /// kernels and what the driver keeps for itself come on top. A batch of more images than an
    /// executor can be made for ([`Plan::countable_batch`]) is counted as one of so many.
    pub fn bytes(&self, plan: &Plan) -> usize {
        let countable = Self {
            batch: self.batch.min(plan.countable_batch()),
            ..self.clone()
        };
        countable.layout(plan).1.total()
    }

    pub(super) fn layout(&self, plan: &Plan) -> (Slots, Layout) {
        let mut layout = Layout::default();
        let stored = Stored {
            precision: self.precision,
            recompute: self.recompute,
        };
        let scratch = scratch(plan, self.batch);
        let slots = Slots::new(plan, self.batch, stored, scratch, &mut layout);
        (slots, layout)
    }
}

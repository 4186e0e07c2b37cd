//! The options of an executor.

use super::super::kernels::scratch;
use super::super::memory::{Layout, Placement, Slots, Stored};
use super::super::program::Cache;
use crate::plan::{Frozen, Outputs, Plan, Precision, Recompute, Training};

/// The options of a [`CudaExecutor`](super::CudaExecutor).
#[derive(Clone, Debug)]
pub struct CudaOptions {
    /// The largest batch.
    pub batch: usize,
    /// In bf16, feature maps, their gradients and the operands of products are bfloat16, and the
    /// tensor cores multiply. Parameters and their gradients, momentum, statistics and sums are
    /// always f32.
    pub precision: Precision,
    /// What the backward pass recomputes.
    pub recompute: Recompute,
    /// Keeps the gradients' second moments, for AdamW.
    pub second_moments: bool,
    /// Keeps an average (EMA) of parameters and running statistics.
    pub average: bool,
    /// The first stages, which do not train.
    pub frozen: Frozen,
    /// Where compiled kernels are kept.
    pub cache: Cache,
    /// Records a pass over a full batch once, and replays it as a CUDA graph.
    pub graphs: bool,
    /// How buffers are allocated.
    pub placement: Placement,
}

impl CudaOptions {
    /// The defaults for a batch size: f32, nothing recomputed, graphs, kernels kept in the user's
    /// cache folder.
    pub fn for_batch(batch: usize) -> Self {
        Self {
            batch,
            precision: Precision::F32,
            recompute: Recompute::Nothing,
            second_moments: false,
            average: false,
            frozen: Frozen::default(),
            cache: Cache::User,
            graphs: true,
            placement: Placement::Together,
        }
    }

    /// What an executor with these options keeps.
    pub fn training(&self) -> Training {
        Training {
            recompute: self.recompute,
            second_moments: self.second_moments,
            average: self.average,
            frozen: self.frozen,
        }
    }

    /// The number of bytes that an executor of a plan allocates on its device; needs no device.
    /// Compiled kernels and the driver's own memory come on top. A batch larger than an executor
    /// can be made for ([`Plan::countable_batch`]) counts as one of that size.
    pub fn bytes(&self, plan: &Plan) -> usize {
        let countable = Self {
            batch: self.batch.min(plan.countable_batch()),
            ..self.clone()
        };
        countable.layout(plan).1.total()
    }

    /// The buffers of an executor of a plan, and their positions.
    pub(in crate::cuda) fn layout(&self, plan: &Plan) -> (Slots, Layout) {
        self.layout_with(plan, Outputs::default())
    }

    /// The same with what the frozen form gives beside logits and features.
    pub(in crate::cuda) fn layout_with(&self, plan: &Plan, outputs: Outputs) -> (Slots, Layout) {
        let mut layout = Layout::default();
        let stored = Stored {
            precision: self.precision,
            training: self.training(),
            inference: false,
            outputs,
        };
        let scratch = scratch(plan, self.batch);
        let slots = Slots::new(plan, self.batch, stored, scratch, &mut layout);
        (slots, layout)
    }
}

//! What the launches of a pass share: their target, the buffers, the current batch.

use super::driver::{Address, Arguments, Kernel};
use super::error::CudaError;
use super::memory::{Buffers, NormAt, Offsets, Slot, Slots, WeightAt};
use super::program::BROKEN;
use super::program::slices::multiprocessors;
use super::program::tile::{
    GATHER_THREADS, REDUCTION_THREADS, SWEEPING, SWEPT, THREADS, vector_of,
};
use super::target::LaunchTarget;
use crate::plan::{FrozenTensors, Plan, Precision, Span};

/// Launches kernels on a batch of `batch` images.
#[derive(Clone, Copy)]
pub(super) struct Launcher<'a> {
    pub target: &'a dyn LaunchTarget,
    pub buffers: &'a Buffers,
    pub slots: &'a Slots,
    pub offsets: &'a Offsets,
    pub plan: &'a Plan,
    pub precision: Precision,
    /// Images.
    pub batch: usize,
    /// The most images of a batch.
    pub capacity: usize,
    /// Whether the batch's statistics are measured. Then they normalise, and update the running ones.
    pub training: bool,
    /// Whether the running statistics normalise in spite of that, and stay as they are: in a frozen stage.
    pub at_rest: bool,
    /// Whether weights are already packed and each BN is already a multiply-add, as in the frozen form.
    pub ready: bool,
    /// Whether to use dropout, if the plan has any.
    pub dropout: bool,
    /// Whether NCCL averages beside the launches.
    pub beside: bool,
    /// What is frozen besides the first stages.
    pub frozen: FrozenTensors<'a>,
}

impl Launcher<'_> {
    /// Where a buffer is.
    pub fn at(&self, slot: Slot) -> Address {
        self.buffers.at(slot)
    }

    /// A parameter.
    pub fn parameter(&self, offset: usize) -> Address {
        self.at(self.slots.parameters).floats(offset)
    }

    /// The gradient of a parameter after the frozen stages.
    pub fn gradient_of(&self, offset: usize) -> Address {
        let first = self.slots.trainable[0].start;
        self.at(self.slots.gradients).floats(offset - first)
    }

    /// Whether the tensor that starts with this parameter is frozen, and not by its stage.
    pub fn is_frozen(&self, start: usize) -> bool {
        self.frozen.has(Span { start, len: 1 })
    }

    /// Whether any parameter before this one trains.
    pub fn trains_before(&self, offset: usize) -> bool {
        let first = self.slots.trainable[0].start;
        self.frozen.first_trained(first) < offset
    }

    /// A weight as an operand.
    pub fn packed(&self, weight: WeightAt) -> Address {
        let bytes = self.precision.bytes() * weight.packed;
        self.at(self.slots.packed).bytes(bytes)
    }

    /// The scale of BN.
    pub fn scale(&self, norm: NormAt) -> Address {
        self.at(self.slots.affine).floats(norm.affine)
    }

    /// The shift of BN.
    pub fn shift(&self, norm: NormAt) -> Address {
        self.scale(norm).floats(norm.channels)
    }

    /// What a backward pass takes for gamma of a frozen BN (`norm.cu`).
    pub fn effective(&self, norm: NormAt) -> Address {
        // As many as scales; shifts have none.
        self.at(self.slots.effective).floats(norm.affine / 2)
    }

    /// What a backward pass through BN multiplies by.
    pub fn gamma(&self, norm: NormAt) -> Address {
        match self.is_frozen(norm.gamma) {
            true => self.effective(norm),
            false => self.parameter(norm.gamma),
        }
    }

    /// The multiprocessors that a weight's gradient is cut into slices for.
    pub fn multiprocessors(&self) -> usize {
        multiprocessors(self.beside)
    }

    /// Moments or sums of tiles.
    pub fn partial(&self) -> Address {
        self.at(self.slots.partial)
    }

    /// Slices' shares of a weight's gradient, or sums of blocks that share a product's depth.
    pub fn shares(&self) -> Address {
        self.at(self.slots.shares)
    }

    /// The scalars that change from step to step.
    pub fn scalars(&self) -> Address {
        self.at(self.slots.scalars)
    }

    /// The flag that a loss was not finite.
    pub fn broken(&self) -> Address {
        self.scalars().floats(BROKEN)
    }

    /// Whether values are dropped after the convolution with this weight.
    pub fn drops_after(&self, weight: WeightAt) -> bool {
        self.dropout && self.plan.dropout() > 0.0 && !self.is_frozen(weight.parameter)
    }

    /// The number of the dropout site that follows the convolution with this weight; negative if
    /// nothing is dropped.
    pub fn site(&self, site: usize, weight: WeightAt) -> i32 {
        if self.drops_after(weight) {
            i32::try_from(site).unwrap_or(i32::MAX)
        } else {
            -1
        }
    }

    /// Blocks of THREADS, one for each tile.
    pub fn tiled<A: Arguments>(
        &self,
        kernel: &Kernel<A>,
        grid: [usize; 3],
        arguments: A,
    ) -> Result<(), CudaError> {
        kernel.launch(grid, THREADS, arguments, |launch| {
            self.target.launch(launch)
        })
    }

    /// A thread for each of `count` things.
    pub fn each<A: Arguments>(
        &self,
        kernel: &Kernel<A>,
        count: usize,
        arguments: A,
    ) -> Result<(), CudaError> {
        self.tiled(kernel, [count.div_ceil(THREADS), 1, 1], arguments)
    }

    /// Threads that sweep over pixels x channels of maps, each with a vector of channels: enough
    /// for a pixel. They all load their vectors equally often, [`SWEPT`] at once. `others` blocks
    /// before them do something else.
    pub fn sweep<A: Arguments>(
        &self,
        kernel: &Kernel<A>,
        others: usize,
        [pixels, channels]: [usize; 2],
        arguments: A,
    ) -> Result<(), CudaError> {
        let across = channels / vector_of(self.plan, self.precision);
        let loads = (pixels * across).div_ceil(SWEPT * THREADS);
        let blocks = loads.div_ceil(loads.div_ceil(SWEEPING));
        let blocks = blocks.max(across.div_ceil(THREADS));
        self.tiled(kernel, [others + blocks, 1, 1], arguments)
    }

    /// Blocks of GATHER_THREADS.
    pub fn gathering<A: Arguments>(
        &self,
        kernel: &Kernel<A>,
        blocks: usize,
        arguments: A,
    ) -> Result<(), CudaError> {
        kernel.launch([blocks, 1, 1], GATHER_THREADS, arguments, |launch| {
            self.target.launch(launch)
        })
    }

    /// A block of REDUCTION_THREADS for each of `count` things.
    pub fn reductions<A: Arguments>(
        &self,
        kernel: &Kernel<A>,
        count: usize,
        arguments: A,
    ) -> Result<(), CudaError> {
        kernel.launch([count, 1, 1], REDUCTION_THREADS, arguments, |launch| {
            self.target.launch(launch)
        })
    }
}

//! The stages of a plan in a row, as launches. What is computed is the CPU executor's.

use super::arena::{Arena, Slot};
use super::buffers::{DESCENT_WORDS, LayerAt, NormAt, Places, STEP_WORDS, Slots, WeightAt};
use super::driver::{Address, Kernel, Value};
use super::error::CudaError;
use super::program::{Kernels, Pointwise};
use super::slices::Slicing;
use super::target::Target;
use super::tiles::{
    BACK_CHANNELS, COLUMNS, ROWS, SPATIAL_MAPS, TAP_ROWS, THREADS, TRANSITION_CHANNELS,
    maps_of_back, pointwise_columns, spatial_rows, stem_elements, vector_of,
};
use crate::plan::{Block, Plan, Precision, Recompute, StemKind, Transition};

/// Values of a launch, of whatever kind.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$(Value::from($value)),*] };
}

mod block;
mod head;
mod stem;
mod step;
mod transition;

/// A pass over the network with a batch of some images.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub device: &'a dyn Target,
    pub kernels: &'a Kernels,
    pub arena: &'a Arena,
    pub slots: &'a Slots,
    pub places: &'a Places,
    pub plan: &'a Plan,
    pub recompute: Recompute,
    pub precision: Precision,
    pub batch: usize,
    /// With the batch's statistics, which move the running ones, and dropout.
    pub training: bool,
}

/// Statistics of some channels, the first of `stride`.
#[derive(Clone, Copy)]
struct Statistics {
    mean: Address,
    variance: Address,
    inverse: Address,
}

/// Two sums of each channel.
#[derive(Clone, Copy)]
struct Totals {
    plain: Address,
    normalised: Address,
}

/// What a convolution of a layer reads: a prefix of channels, with BN.
#[derive(Clone, Copy)]
struct Input {
    x: Address,
    norm: NormAt,
}

/// Maps whose producer has left moments of tiles, which their first consumer makes statistics of:
/// `count` channels from `first` on, tiles of `rows` pixels.
#[derive(Clone, Copy)]
struct Fresh {
    first: usize,
    count: usize,
    tiles: usize,
    rows: usize,
}

/// Slices' shares of the gradient of a weight, of `count` values.
#[derive(Clone, Copy)]
struct Shares {
    weight: usize,
    slices: usize,
    count: usize,
}

impl Shares {
    const NONE: Self = Self {
        weight: 0,
        slices: 0,
        count: 0,
    };
}

fn tiles(pixels: usize) -> usize {
    pixels.div_ceil(ROWS)
}

impl Pass<'_> {
    fn at(&self, slot: Slot) -> Address {
        self.arena.at(slot)
    }

    fn parameter(&self, offset: usize) -> Address {
        self.at(self.slots.parameters).floats(offset)
    }

    /// A weight as an operand.
    fn packed(&self, weight: WeightAt) -> Address {
        let bytes = self.precision.bytes() * weight.packed;
        self.at(self.slots.packed).bytes(bytes)
    }

    fn gradient_of(&self, offset: usize) -> Address {
        self.at(self.slots.gradients).floats(offset)
    }

    fn scale(&self, norm: NormAt) -> Address {
        self.at(self.slots.affine).floats(norm.affine)
    }

    fn shift(&self, norm: NormAt) -> Address {
        self.scale(norm).floats(norm.channels)
    }

    fn partial(&self) -> Address {
        self.at(self.slots.partial)
    }

    fn shares(&self) -> Address {
        self.at(self.slots.shares)
    }

    fn scalars(&self) -> Address {
        self.at(self.slots.scalars)
    }

    /// Whether a loss was not finite.
    pub fn broken(&self) -> Address {
        self.scalars().floats(STEP_WORDS + DESCENT_WORDS)
    }

    fn training(&self) -> usize {
        usize::from(self.training)
    }

    fn statistics(&self, slot: Slot, channels: usize) -> Statistics {
        let mean = self.at(slot);
        Statistics {
            mean,
            variance: mean.floats(channels),
            inverse: mean.floats(2 * channels),
        }
    }

    fn totals(&self, slot: Slot, channels: usize) -> Totals {
        let plain = self.at(slot);
        Totals {
            plain,
            normalised: plain.floats(channels),
        }
    }

    /// A dropout site's number; none while evaluating or without dropout.
    fn site(&self, site: usize) -> i32 {
        if self.training && self.plan.dropout() > 0.0 {
            i32::try_from(site).unwrap_or(i32::MAX)
        } else {
            -1
        }
    }

    fn tiled(&self, kernel: &Kernel, grid: [usize; 3], values: &[Value]) -> Result<(), CudaError> {
        self.device.launch(kernel, (grid, THREADS), values)
    }

    /// A thread for each of `count` things.
    fn each(&self, kernel: &Kernel, count: usize, values: &[Value]) -> Result<(), CudaError> {
        let grid = [count.div_ceil(THREADS), 1, 1];
        self.device.launch(kernel, (grid, THREADS), values)
    }

    /// A block of 128 threads for each of `count` things.
    fn blocks(&self, kernel: &Kernel, count: usize, values: &[Value]) -> Result<(), CudaError> {
        self.device.launch(kernel, ([count, 1, 1], 128), values)
    }

    /// Weights as operands, from the parameters.
    fn pack_weights(&self) -> Result<(), CudaError> {
        /// Blocks of a weight: with all weights, some for each multiprocessor.
        const SHARE: usize = 16;
        let count = self.places.packed_weights().count();
        self.tiled(
            &self.kernels.weights.pack_weights,
            [SHARE, count, 1],
            values![
                self.at(self.slots.parameters),
                self.at(self.slots.weight_table),
                self.at(self.slots.packed),
            ],
        )
    }

    /// BN of a consumer as a multiply-add; the latest of its channels have no statistics yet.
    fn prepare(
        &self,
        norm: NormAt,
        of: Statistics,
        (fresh, pixels): (Fresh, usize),
    ) -> Result<(), CudaError> {
        let count = if self.training { fresh.count } else { 0 };
        let others = norm.channels - count;
        self.blocks(
            &self.kernels.norm.prepare,
            count + others.div_ceil(128),
            values![
                self.partial(),
                self.parameter(norm.gamma),
                self.parameter(norm.beta()),
                of.mean,
                of.variance,
                of.inverse,
                self.at(self.slots.running).floats(norm.running),
                self.scale(norm),
                self.shift(norm),
                fresh.first,
                count,
                fresh.tiles,
                fresh.rows,
                pixels,
                norm.channels,
                self.training(),
            ],
        )
    }

    /// Puts together what a way back left: gradients of gamma and beta from the tiles' sums, with
    /// what undoing BN needs, and a weight's gradient from the slices' shares.
    fn gather(
        &self,
        norm: NormAt,
        inverse: Address,
        totals: Totals,
        (tiles, add): (usize, bool),
        shares: Shares,
    ) -> Result<(), CudaError> {
        self.blocks(
            &self.kernels.norm.gather,
            norm.channels + shares.count.div_ceil(128),
            values![
                self.partial(),
                self.parameter(norm.gamma),
                inverse,
                self.gradient_of(norm.gamma),
                self.gradient_of(norm.beta()),
                totals.plain,
                totals.normalised,
                tiles,
                norm.channels,
                usize::from(add),
                self.shares(),
                self.gradient_of(shares.weight),
                shares.slices,
                shares.count,
            ],
        )
    }

    /// The weight's part of [`gather`](Self::gather) alone.
    fn add_shares(&self, shares: Shares) -> Result<(), CudaError> {
        let none = self.partial();
        let totals = Totals {
            plain: none,
            normalised: none,
        };
        self.gather(NormAt::default(), none, totals, (0, false), shares)
    }

    /// A thread for each vector of maps, of so many values.
    fn vectors(&self, kernel: &Kernel, count: usize, values: &[Value]) -> Result<(), CudaError> {
        let vector = vector_of(self.plan, self.precision);
        self.each(kernel, count / vector, values)
    }

    /// From the images to the logits.
    pub fn forward(&self) -> Result<(), CudaError> {
        if self.training {
            self.start()?;
        }
        self.pack_weights()?;
        let mut fresh = self.stem_forward()?;
        for index in 0..self.plan.blocks().len() {
            fresh = self.block_forward(index, fresh)?;
            if let Some(transition) = self.plan.transitions().get(index) {
                fresh = self.transition_forward(index, transition, fresh)?;
            }
        }
        self.head_forward(fresh)
    }

    /// The loss of each image; when training, the gradient of the logits.
    pub fn loss(&self) -> Result<(), CudaError> {
        self.blocks(
            &self.kernels.head.cross_entropy,
            self.batch,
            values![
                self.at(self.slots.logits),
                self.at(self.slots.labels),
                self.at(self.slots.logit_gradient),
                self.at(self.slots.results),
                self.scalars(),
                self.batch,
                self.training(),
            ],
        )
    }

    /// From the gradient of the logits to the gradients of the parameters.
    pub fn backward(&self) -> Result<(), CudaError> {
        let count = self.plan.parameter_count();
        // Where a loss of one rank was not finite, none descends.
        self.device.complete(self.broken(), 1)?;
        let mut stages = self.places.stages(count).into_iter();
        let mut complete = || match stages.next() {
            Some((from, count)) if count > 0 => self.device.complete(self.gradient_of(from), count),
            _ => Ok(()),
        };
        self.head_backward()?;
        complete()?;
        for index in (0..self.plan.blocks().len()).rev() {
            self.block_backward(index)?;
            complete()?;
            if let Some(before) = index.checked_sub(1) {
                self.transition_backward(before, &self.plan.transitions()[before])?;
                complete()?;
            }
        }
        self.stem_backward()?;
        complete()?;
        // The running statistics have moved in the forward pass.
        let running = self.at(self.slots.running);
        self.device.complete(running, self.plan.running_count())?;
        self.device.join()
    }
}

//! A transition: BN, ReLU, 1x1 convolution, average pool.

use super::super::driver::{Address, Source, arguments, kernels};
use super::super::error::CudaError;
use super::super::kernel::left::{Shares, Sums};
use super::super::kernel::norm::{BatchNorm, Fresh};
use super::super::memory::Scratch;
use super::super::program::Sources;
use super::super::program::slices::Slicing;
use super::super::program::tile::{ROWS, pointwise_columns, tiles, vector};
#[cfg(feature = "roofline")]
use super::super::traffic::{Counter, Traffic};
use crate::plan::{self, Plan, Precision};

/// Channels of a tile of the weight's gradient.
const TILE_CHANNELS: usize = 64;

/// The number of tiles of maps from which on the operand of the products is made once, before them.
const POOLED_TILES: usize = 2;

arguments! {
    pub struct Pool {
        input: Address, scale: Address, shift: Address, into: Address, pooled: usize,
    }
    pub struct Forward {
        input: Address, scale: Address, shift: Address, weight: Address, out: Address,
        partial: Address, scalars: Address, site: i32, pooled: usize, training: bool,
    }
    pub struct Pull {
        dout: Address, weight: Address, input: Address,
        scale: Address, shift: Address, mean: Address, gamma: Address,
        into: Address, partial: Address, scalars: Address, site: i32, pooled: usize,
    }
    pub struct Weight {
        dout: Address, input: Address, scale: Address, shift: Address, share: Address,
        scalars: Address, site: i32, pooled: usize, length: usize,
    }
}
kernels! {
    pub struct TransitionKernels {
        transition_pool: Pool,
        transition_forward: Forward,
        transition_forward_dropped: Forward,
        transition_pull: Pull,
        transition_pull_dropped: Pull,
        transition_weight: Weight,
        transition_weight_dropped: Weight,
    }
}

/// The program of the transition with this number.
pub fn source(of: Sources<'_>, index: usize) -> Source {
    let shape = &of.plan.transitions()[index];
    let stride = of.plan.blocks()[index + 1].output();
    let constants = [
        ("HEIGHT", shape.height),
        ("WIDTH", shape.width),
        ("IN", shape.input),
        ("OUT", shape.output),
        ("OUT_STRIDE", stride),
        ("COLUMNS", pointwise_columns(shape.output)),
        ("TILE_CHANNELS", TILE_CHANNELS),
        ("POOLED", usize::from(pooled_first(shape))),
        ("VECTOR", own_vector(of.plan, index, of.precision)),
    ];
    let file = ("transition.cu", include_str!("transition.cu"));
    of.tiled("transition", &[file], &constants)
}

/// Values that the kernels of the transition with this number load at once.
fn own_vector(plan: &Plan, index: usize, precision: Precision) -> usize {
    let shape = &plan.transitions()[index];
    let stride = plan.blocks()[index + 1].output();
    vector(precision, &[shape.input, shape.output, stride])
}

/// Whether the operand of the products is made once before them, unless there is dropout.
fn pooled_first(shape: &plan::Transition) -> bool {
    shape.output.div_ceil(pointwise_columns(shape.output)) >= POOLED_TILES
}

/// How the gradient of the weight is summed.
fn slicing(shape: &plan::Transition) -> Slicing {
    let across = shape.output.div_ceil(pointwise_columns(shape.output));
    Slicing {
        weight: shape.output * shape.input,
        blocks: across * shape.input.div_ceil(TILE_CHANNELS),
        room: 3,
        tile: ROWS,
    }
}

/// The memory for what these kernels leave for the next ones.
pub fn scratch(scratch: &mut Scratch, plan: &Plan, batch: usize) {
    for shape in plan.transitions().iter() {
        let pixels = batch * shape.pixels();
        scratch.sums(pixels, shape.input.max(shape.output));
        scratch.shares(pixels, slicing(shape));
        let pooled = batch * (shape.height / 2) * (shape.width / 2);
        scratch.pooled(if pooled_first(shape) {
            pooled * shape.input
        } else {
            0
        });
    }
}

/// A transition of a network.
pub struct Transition<'a> {
    pub bn: BatchNorm<'a>,
    pub kernels: &'a TransitionKernels,
    pub index: usize,
}

impl Transition<'_> {
    /// From a block's maps to the next one's input.
    pub fn forward(&self, fresh: Fresh) -> Result<Fresh, CudaError> {
        let (on, shape) = (self.bn.on, self.shape());
        let own = &on.slots.blocks[self.index];
        let (norm, weight) = on.offsets.transitions[self.index];
        let statistics = self.bn.statistics(own.statistics, shape.input);
        let pixels = on.batch * on.plan.blocks()[self.index].pixels();
        self.bn.prepare(norm, statistics, fresh, pixels)?;
        let kernel = if self.drops() {
            &self.kernels.transition_forward_dropped
        } else {
            &self.kernels.transition_forward
        };
        let across = tiles(self.rows());
        let columns = pointwise_columns(shape.output);
        let (scale, shift) = (on.scale(norm), on.shift(norm));
        if self.pooled_first() {
            on.each(
                &self.kernels.transition_pool,
                self.pooled() * shape.input / own_vector(on.plan, self.index, on.precision),
                Pool {
                    input: on.at(own.maps),
                    scale,
                    shift,
                    into: self.operand(),
                    pooled: self.pooled(),
                },
            )?;
        }
        on.tiled(
            kernel,
            [across * shape.output.div_ceil(columns), 1, 1],
            Forward {
                input: self.operand(),
                scale,
                shift,
                weight: on.packed(weight),
                out: on.at(on.slots.blocks[self.index + 1].maps),
                partial: on.partial(),
                scalars: on.scalars(),
                site: self.site(),
                pooled: self.pooled(),
                training: on.training,
            },
        )?;
        Ok(Fresh {
            first: 0,
            count: shape.output,
            tiles: across,
            rows: ROWS / self.group(),
        })
    }

    /// From the gradient of the next block's input to that of the block's maps.
    pub fn backward(&self) -> Result<(), CudaError> {
        let (on, shape) = (self.bn.on, self.shape());
        let own = &on.slots.blocks[self.index];
        let (norm, weight) = on.offsets.transitions[self.index];
        let into = on.at(on.slots.gradient);
        if !shape.height.is_multiple_of(2) || !shape.width.is_multiple_of(2) {
            // Pixels that the pool leaves out have no gradient.
            let values = on.batch * on.plan.blocks()[self.index].pixels() * shape.input;
            on.target.clear(into, on.precision.bytes() * values)?;
        }
        let (pull, of_weight) = if self.drops() {
            (
                &self.kernels.transition_pull_dropped,
                &self.kernels.transition_weight_dropped,
            )
        } else {
            (
                &self.kernels.transition_pull,
                &self.kernels.transition_weight,
            )
        };
        let statistics = self.bn.statistics(own.statistics, shape.input);
        let (dout, input) = (on.at(on.slots.handover), on.at(own.maps));
        let (scale, shift) = (on.scale(norm), on.shift(norm));
        let (scalars, site, pooled) = (on.scalars(), self.site(), self.pooled());
        let across = tiles(self.rows());
        let columns = pointwise_columns(shape.output);
        on.tiled(
            pull,
            [across * shape.input.div_ceil(columns), 1, 1],
            Pull {
                dout,
                weight: on.packed(weight),
                input,
                scale,
                shift,
                mean: statistics.mean,
                gamma: on.gamma(norm),
                into,
                partial: on.partial(),
                scalars,
                site,
                pooled,
            },
        )?;
        let sums = Sums {
            norm,
            inverse: statistics.inverse,
            totals: self.bn.totals(own.totals, shape.input),
            tiles: across,
            add: false,
        };
        let sums = sums.counted(on).needed();
        if on.is_frozen(weight.parameter) {
            return self.bn.gather(sums, None);
        }
        let slicing = slicing(shape);
        let (slices, length) = slicing.slices(self.rows(), on.multiprocessors());
        on.tiled(
            of_weight,
            [
                shape.output.div_ceil(columns),
                shape.input.div_ceil(TILE_CHANNELS),
                slices,
            ],
            Weight {
                dout,
                input: self.operand(),
                scale,
                shift,
                share: on.shares(),
                scalars,
                site,
                pooled,
                length,
            },
        )?;
        let shares = Shares::in_order(weight.parameter, slices, slicing.weight);
        self.bn.gather(sums, Some(shares))
    }

    fn shape(&self) -> &plan::Transition {
        &self.bn.on.plan.transitions()[self.index]
    }

    /// Whether the operand of the products is made before them.
    fn pooled_first(&self) -> bool {
        pooled_first(self.shape()) && !self.drops()
    }

    /// The operand of the products: the block's maps, or the values made from them.
    fn operand(&self) -> Address {
        let slots = self.bn.on.slots;
        self.bn.on.at(if self.pooled_first() {
            slots.pooled[self.index]
        } else {
            slots.blocks[self.index].maps
        })
    }

    fn pooled(&self) -> usize {
        self.bn.on.batch * self.bn.on.plan.blocks()[self.index + 1].pixels()
    }

    /// Rows of a product for each pooled pixel: dropout comes before the pool.
    fn group(&self) -> usize {
        if self.drops() { 4 } else { 1 }
    }

    /// Rows of a product.
    fn rows(&self) -> usize {
        self.pooled() * self.group()
    }

    /// Whether dropout follows the convolution.
    fn drops(&self) -> bool {
        let on = self.bn.on;
        on.drops_after(on.offsets.transitions[self.index].1)
    }

    /// The site of its dropout.
    fn site(&self) -> i32 {
        let on = self.bn.on;
        let (_, weight) = on.offsets.transitions[self.index];
        on.site(on.plan.dropout_sites(self.index).transition(), weight)
    }
}

/// The elements that a launch moves.
#[cfg(feature = "roofline")]
pub fn traffic(of: &Counter<'_>) -> Option<Traffic> {
    let (channels, maps, pooled) = (of.constant("IN"), of.constant("OUT"), of.count("pooled"));
    let dropped = of.kernel().ends_with("_dropped");
    let seed = of.seed();
    let (input, output, weight) = (4 * pooled * channels, pooled * maps, channels * maps);
    // What the products read.
    let made = of.constant("POOLED") == 1 && !dropped;
    let (operand, affine) = if made {
        (pooled * channels, 0)
    } else {
        (input, channels)
    };
    // The grid counts tiles of rows times tiles across a row.
    let across = |channels: u64| channels.div_ceil(of.constant("COLUMNS"));
    let moved = match of.kernel().trim_end_matches("_dropped") {
        "transition_pool" => {
            return Some(of.moves(
                &[("input", input), ("scale", channels), ("shift", channels)],
                &[("into", pooled * channels)],
            ));
        }
        "transition_forward" => of.moves(
            &[
                ("input", operand),
                ("scale", affine),
                ("shift", affine),
                ("weight", weight),
                ("scalars", seed),
            ],
            &[
                ("out", output),
                ("partial", of.moments(maps) / across(maps)),
            ],
        ),
        "transition_pull" => of.moves(
            &[
                ("dout", output),
                ("weight", weight),
                ("input", input),
                ("scale", channels),
                ("shift", channels),
                ("mean", channels),
                ("gamma", channels),
                ("scalars", seed),
            ],
            &[
                ("into", input),
                ("partial", of.partial(channels) / across(channels)),
            ],
        ),
        "transition_weight" => of.moves(
            &[
                ("dout", output),
                ("input", operand),
                ("scale", affine),
                ("shift", affine),
                ("scalars", seed),
            ],
            &[("share", of.grid()[2] * weight)],
        ),
        _ => return None,
    };
    // Dropout comes before the pool, so the product has all pixels.
    Some(moved.product(pooled * if dropped { 4 } else { 1 }, maps, channels))
}

//! Batch normalisation around the convolutions. Each stage does its own: forward as a multiply-add
//! that is applied as it reads its input, and backward from the sums of its tiles.

use super::super::driver::{Address, Source, arguments, kernels};
use super::super::error::CudaError;
use super::super::launch::Launcher;
use super::super::memory::{NormAt, Slot};
use super::super::program::tile::{GATHER_THREADS, ROWS, SWEPT, THREADS, tiles, vector_of};
use super::super::program::{GATHER, Sources};
#[cfg(feature = "roofline")]
use super::super::traffic::{Counter, Traffic};
#[cfg(feature = "roofline")]
use super::left::passed;
use super::left::{Left, PassedAt, Shares, SharesAt, Sums, Totals};

arguments! {
    pub struct Prepare {
        partial: Address, gamma: Address, beta: Address,
        mean: Address, variance: Address, inverse: Address,
        running: Address, scale: Address, shift: Address, effective: Address,
        first: usize, count: usize, tiles: usize, rows: usize, pixels: usize, channels: usize,
        training: bool, frozen: bool, lanes: usize,
    }
    pub struct Gather {
        partial: Address, gamma: Address, inverse: Address, dgamma: Address, dbeta: Address,
        plain: Address, normalised: Address,
        tiles: usize, channels: usize, add: bool, lanes: usize,
        share: Address, gradient: Address, slices: usize, count: usize, taps: usize, across: usize,
        parts: usize,
    }
    pub struct Finish {
        g: Address, x: Address, mean: Address, inverse: Address,
        plain: Address, normalised: Address, into: Address, scalars: Address,
        stride: usize, first: usize, count: usize, pixels: usize, site: i32,
        partial: Address, gamma: Address, dgamma: Address, dbeta: Address,
        tiles: usize, lanes: usize,
        share: Address, gradient: Address, slices: usize, values: usize, taps: usize,
        across: usize, parts: usize,
    }
    pub struct Undo {
        dy: Address, y: Address, mean: Address, inverse: Address, gamma: Address,
        plain: Address, normalised: Address, scalars: Address,
        maps: usize, pixels: usize, site: i32,
        share: Address, gradient: Address, slices: usize, values: usize, taps: usize,
        across: usize, parts: usize,
    }
    pub struct UndoNumbers {
        mean: Address, inverse: Address, gamma: Address, plain: Address, normalised: Address,
        into: Address, maps: usize, pixels: usize,
    }
}
kernels! {
    pub struct NormKernels {
        prepare: Prepare,
        gather: Gather,
        finish: Finish,
        undo: Undo,
        undo_numbers: UndoNumbers,
    }
}

/// The most columns of a block that `finish` undoes whose last consumer's sums it puts together itself:
/// all of a layer's, in the paper's networks.
pub const FINISHED: usize = 64;

/// The program of these kernels.
pub fn source(of: Sources<'_>) -> Source {
    let constants = [
        ("VECTOR", vector_of(of.plan, of.precision)),
        ("SWEPT", SWEPT),
        ("GATHER_THREADS", GATHER_THREADS),
        ("FINISHED", FINISHED),
    ];
    let file = ("norm.cu", include_str!("norm.cu"));
    of.plain("norm", &[GATHER, file], &constants)
}

/// Statistics of channels.
#[derive(Clone, Copy)]
pub struct Statistics {
    pub mean: Address,
    pub variance: Address,
    pub inverse: Address,
}

/// Maps that have only the moments of their producer's tiles. Their first consumer computes their
/// statistics: `count` channels from `first` on, from tiles of `rows` pixels.
#[derive(Clone, Copy)]
pub struct Fresh {
    pub first: usize,
    pub count: usize,
    pub tiles: usize,
    pub rows: usize,
}

impl Fresh {
    /// None: the maps are not measured.
    pub const NONE: Self = Self {
        first: 0,
        count: 0,
        tiles: 0,
        rows: ROWS,
    };

    /// All `count` channels of maps with `pixels` pixels.
    pub fn all(count: usize, pixels: usize) -> Self {
        Self {
            first: 0,
            count,
            tiles: tiles(pixels),
            rows: ROWS,
        }
    }
}

/// Some columns of a block's maps, and where their gradient goes.
#[derive(Clone, Copy)]
pub struct ColumnRange {
    pub first: usize,
    pub count: usize,
    /// All maps of the block: `pixels` of `stride` columns, their statistics, and the sums that their
    /// consumers have left.
    pub x: Address,
    pub pixels: usize,
    pub stride: usize,
    pub statistics: Statistics,
    pub totals: Totals,
    pub into: Address,
    /// The site of the maps' dropout.
    pub site: i32,
}

/// The channels of a block whose threads share `tiles`, a power of two: enough that each thread has
/// something to load if there are few tiles, and at least a whole sector's.
fn lanes(tiles: usize, threads: usize) -> usize {
    1 << (threads / tiles.max(1)).clamp(4, 32).ilog2()
}

/// The same for `blocks` that have other work and share `channels`, at most 32 each: few enough that
/// a thread loads once, if there are enough blocks.
pub fn lanes_on_the_way(tiles: usize, channels: usize, blocks: usize) -> usize {
    let few = 1 << (8 * THREADS / tiles.max(1)).clamp(1, 32).ilog2();
    channels.div_ceil(blocks).next_power_of_two().max(few)
}

/// Batch normalisation, for the stages.
#[derive(Clone, Copy)]
pub struct BatchNorm<'a> {
    pub on: &'a Launcher<'a>,
    pub kernels: &'a NormKernels,
}

impl BatchNorm<'_> {
    /// The statistics in a buffer.
    pub fn statistics(&self, slot: Slot, channels: usize) -> Statistics {
        let mean = self.on.at(slot);
        Statistics {
            mean,
            variance: mean.floats(channels),
            inverse: mean.floats(2 * channels),
        }
    }

    /// The totals in a buffer.
    pub fn totals(&self, slot: Slot, channels: usize) -> Totals {
        let plain = self.on.at(slot);
        Totals {
            plain,
            normalised: plain.floats(channels),
        }
    }

    /// BN of a consumer as a multiply-add. Its last channels, those of `fresh`, have no statistics
    /// yet.
    pub fn prepare(
        &self,
        norm: NormAt,
        of: Statistics,
        fresh: Fresh,
        pixels: usize,
    ) -> Result<(), CudaError> {
        let on = self.on;
        if on.ready {
            return Ok(());
        }
        let count = if on.training { fresh.count } else { 0 };
        let others = norm.channels - count;
        let lanes = lanes(fresh.tiles, GATHER_THREADS);
        on.gathering(
            &self.kernels.prepare,
            count.div_ceil(lanes) + others.div_ceil(GATHER_THREADS),
            Prepare {
                partial: on.partial(),
                gamma: on.parameter(norm.gamma),
                beta: on.parameter(norm.beta()),
                mean: of.mean,
                variance: of.variance,
                inverse: of.inverse,
                running: on.at(on.slots.running).floats(norm.running),
                scale: on.scale(norm),
                shift: on.shift(norm),
                effective: match on.is_frozen(norm.gamma) {
                    true => on.effective(norm),
                    false => on.partial(),
                },
                first: fresh.first,
                count,
                tiles: fresh.tiles,
                rows: fresh.rows,
                pixels,
                channels: norm.channels,
                training: on.training && !on.at_rest,
                frozen: on.is_frozen(norm.gamma),
                lanes,
            },
        )
    }

    /// BN of a consumer as a multiply-add, from the running statistics.
    pub fn prepare_at_rest(&self, norm: NormAt) -> Result<(), CudaError> {
        // Nothing is measured, so statistics are neither read nor written.
        let nothing = self.on.partial();
        let of = Statistics {
            mean: nothing,
            variance: nothing,
            inverse: nothing,
        };
        self.prepare(norm, of, Fresh::NONE, 0)
    }

    /// Completes a backward pass, if anything is left of it: computes gradients of gamma and beta, and
    /// the sums that undo BN, from the tiles' sums, and a weight's gradient from the slices' shares.
    pub fn gather(&self, sums: Option<Sums>, shares: Option<Shares>) -> Result<(), CudaError> {
        if sums.is_none() && shares.is_none() {
            return Ok(());
        }
        let on = self.on;
        let (passed, shares) = (PassedAt::of(on, sums), SharesAt::of(on, shares));
        let lanes = lanes(passed.tiles, GATHER_THREADS);
        on.gathering(
            &self.kernels.gather,
            passed.channels.div_ceil(lanes) + shares.blocks(GATHER_THREADS),
            Gather {
                partial: on.partial(),
                gamma: passed.gamma,
                inverse: passed.inverse,
                dgamma: passed.dgamma,
                dbeta: passed.dbeta,
                plain: passed.totals.plain,
                normalised: passed.totals.normalised,
                tiles: passed.tiles,
                channels: passed.channels,
                add: passed.add,
                lanes,
                share: on.shares(),
                gradient: shares.gradient,
                slices: shares.slices,
                count: shares.count,
                taps: shares.taps,
                across: shares.channels,
                parts: shares.parts,
            },
        )
    }

    /// Undoes the BN of some columns of a block after all their consumers, and writes their gradient.
    /// If the last consumer has left sums or shares, the launch puts these together, too.
    pub fn finish(&self, columns: ColumnRange, left: Option<Left>) -> Result<(), CudaError> {
        let on = self.on;
        let ColumnRange { first, count, .. } = columns;
        let mut left = left.unwrap_or_default();
        if left.sums.is_some() && count > FINISHED {
            self.gather(left.sums.take(), left.shares.take())?;
        }
        let (passed, shares) = (PassedAt::of(on, left.sums), SharesAt::of(on, left.shares));
        let lanes = lanes(passed.tiles, THREADS);
        on.sweep(
            &self.kernels.finish,
            passed.channels.div_ceil(lanes) + shares.blocks(THREADS),
            [columns.pixels, count],
            Finish {
                g: on.at(on.slots.gradient),
                x: columns.x,
                mean: columns.statistics.mean,
                inverse: columns.statistics.inverse,
                plain: columns.totals.plain,
                normalised: columns.totals.normalised,
                into: columns.into,
                scalars: on.scalars(),
                stride: columns.stride,
                first,
                count,
                pixels: columns.pixels,
                site: columns.site,
                partial: on.partial(),
                gamma: passed.gamma,
                dgamma: passed.dgamma,
                dbeta: passed.dbeta,
                tiles: passed.tiles,
                lanes,
                share: on.shares(),
                gradient: shares.gradient,
                slices: shares.slices,
                values: shares.count,
                taps: shares.taps,
                across: shares.channels,
                parts: shares.parts,
            },
        )
    }
}

/// The elements that a launch moves.
#[cfg(feature = "roofline")]
pub fn traffic(of: &Counter<'_>) -> Option<Traffic> {
    let (pixels, channels) = (of.count("pixels"), of.count("channels"));
    Some(match of.kernel() {
        "prepare" => {
            let fresh = of.count("count");
            let training = u64::from(of.training());
            let frozen = training * of.count("frozen");
            let moving = training - frozen;
            // Of channels that have their statistics.
            let measured = channels - fresh;
            of.moves(
                &[
                    ("partial", 2 * of.count("tiles") * fresh),
                    ("gamma", channels),
                    ("beta", channels),
                    ("mean", moving * measured),
                    ("variance", moving * measured),
                    ("inverse", training * measured),
                    ("running", 2 * channels),
                ],
                &[
                    ("mean", fresh),
                    ("variance", fresh),
                    ("inverse", fresh),
                    ("running", 2 * moving * channels),
                    ("scale", channels),
                    ("shift", channels),
                    ("effective", frozen * channels),
                ],
            )
        }
        "gather" => {
            let count = of.count("count");
            let shares = of.count("slices") * count;
            of.moves(
                &[("share", shares), ("gradient", count)],
                &[("gradient", count)],
            )
            .and(passed(of))
        }
        "finish" => {
            let (first, count) = (of.count("first"), of.count("count"));
            // Of channels whose sums are put together.
            let left = u64::from(of.count("tiles") > 0);
            let (others, all) = (left * first, left * (first + count));
            let values = of.count("values");
            of.moves(
                &[
                    ("g", pixels * count),
                    ("x", pixels * count),
                    ("mean", count),
                    ("inverse", others + count),
                    ("plain", others + count),
                    ("normalised", others + count),
                    ("scalars", of.seed()),
                    ("partial", 2 * of.count("tiles") * all),
                    ("gamma", all),
                    ("dgamma", all),
                    ("dbeta", all),
                    ("share", of.count("slices") * values),
                    ("gradient", values),
                ],
                &[
                    ("into", pixels * count),
                    ("plain", others),
                    ("normalised", others),
                    ("dgamma", all),
                    ("dbeta", all),
                    ("gradient", values),
                ],
            )
        }
        "undo" => {
            let (maps, values) = (of.count("maps"), of.count("values"));
            of.moves(
                &[
                    ("dy", pixels * maps),
                    ("y", pixels * maps),
                    ("mean", maps),
                    ("inverse", maps),
                    ("gamma", maps),
                    ("plain", maps),
                    ("normalised", maps),
                    ("scalars", of.seed()),
                    ("share", of.count("slices") * values),
                    ("gradient", values),
                ],
                &[("dy", pixels * maps), ("gradient", values)],
            )
        }
        "undo_numbers" => {
            let maps = of.count("maps");
            of.moves(
                &[
                    ("mean", maps),
                    ("inverse", maps),
                    ("gamma", maps),
                    ("plain", maps),
                    ("normalised", maps),
                ],
                &[("into", 4 * maps)],
            )
        }
        _ => return None,
    })
}

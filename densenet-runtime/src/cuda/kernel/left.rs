//! What tiles and slices leave for a pass backward, and the values of the launches that put it together
//! (`program/gather.cuh`).

use super::super::driver::Address;
use super::super::launch::Launcher;
use super::super::memory::NormAt;
use super::super::program::slices::MULTIPROCESSORS;
#[cfg(feature = "roofline")]
use super::super::traffic::{Counter, Traffic};

/// Two sums of each channel: of g, and of g times the normalised value.
#[derive(Clone, Copy)]
pub struct Totals {
    pub plain: Address,
    pub normalised: Address,
}

/// What a backward pass through a BN leaves: sums of tiles for gamma and beta.
#[derive(Clone, Copy)]
pub struct Sums {
    pub norm: NormAt,
    pub inverse: Address,
    pub totals: Totals,
    pub tiles: usize,
    /// Whether an earlier consumer of the channels has added its sums to the totals.
    pub add: bool,
}

impl Sums {
    /// These; if the BN is frozen, as zeros.
    pub fn counted(self, on: &Launcher<'_>) -> Self {
        match on.is_frozen(self.norm.gamma) {
            true => Self { tiles: 0, ..self },
            false => self,
        }
    }

    /// These, unless they would change nothing.
    pub fn needed(self) -> Option<Self> {
        (self.tiles > 0 || !self.add).then_some(self)
    }
}

/// The slices' shares of the gradient of a weight with `count` values.
#[derive(Clone, Copy)]
pub struct Shares {
    pub weight: usize,
    pub slices: usize,
    pub count: usize,
    /// The weight's taps and channels, if a share is maps x taps x channels, which is written
    /// faster than the weight's order. For a share in the weight's order, 1 and 1.
    pub taps: usize,
    pub channels: usize,
}

impl Shares {
    /// Those in the order of a weight with `count` values, which starts at parameter `weight`.
    pub fn in_order(weight: usize, slices: usize, count: usize) -> Self {
        Self {
            weight,
            slices,
            count,
            taps: 1,
            channels: 1,
        }
    }
}

/// Sums and shares of a layer's backward pass that no launch needs before the one after it, which
/// puts them together on the way.
#[derive(Clone, Copy, Default)]
pub struct Left {
    /// Those of the BN of the layer's input.
    pub sums: Option<Sums>,
    pub shares: Option<Shares>,
}

/// The values with which a launch completes a backward pass through a BN (`Passed` in gather.cuh).
pub struct PassedAt {
    pub gamma: Address,
    pub inverse: Address,
    pub dgamma: Address,
    pub dbeta: Address,
    pub totals: Totals,
    pub tiles: usize,
    pub channels: usize,
    pub add: bool,
}

impl PassedAt {
    /// For these sums. Without any there are no channels, and nothing is read.
    pub fn of(on: &Launcher<'_>, sums: Option<Sums>) -> Self {
        let nothing = on.partial();
        match sums {
            None => Self {
                gamma: nothing,
                inverse: nothing,
                dgamma: nothing,
                dbeta: nothing,
                totals: Totals {
                    plain: nothing,
                    normalised: nothing,
                },
                tiles: 0,
                channels: 0,
                add: false,
            },
            Some(own) => Self {
                gamma: on.parameter(own.norm.gamma),
                inverse: own.inverse,
                dgamma: on.gradient_of(own.norm.gamma),
                dbeta: on.gradient_of(own.norm.beta()),
                totals: own.totals,
                tiles: own.tiles,
                channels: own.norm.channels,
                add: own.add,
            },
        }
    }
}

/// The values with which a launch puts shares together (`Shares` in gather.cuh).
pub struct SharesAt {
    pub gradient: Address,
    pub slices: usize,
    pub count: usize,
    pub taps: usize,
    pub channels: usize,
    pub parts: usize,
}

impl SharesAt {
    /// For these shares. Without any the weight has no values, and nothing is read.
    pub fn of(on: &Launcher<'_>, shares: Option<Shares>) -> Self {
        match shares {
            None => Self {
                gradient: on.shares(),
                slices: 0,
                count: 0,
                taps: 1,
                channels: 1,
                parts: 1,
            },
            Some(own) => Self {
                gradient: on.gradient_of(own.weight),
                slices: own.slices,
                count: own.count,
                taps: own.taps,
                channels: own.channels,
                parts: parts(own),
            },
        }
    }

    /// The blocks of so many threads that do it.
    pub fn blocks(&self, threads: usize) -> usize {
        (self.count * self.parts).div_ceil(threads)
    }
}

/// The threads that sum the shares of each value of a weight, a power of two. For a small weight
/// there are several, each with some slices, so that all multiprocessors of a large card load as
/// much as they can.
fn parts(of: Shares) -> usize {
    let values = (MULTIPROCESSORS * 2048 / of.count.max(1)).min(of.slices / 4);
    1 << values.clamp(1, 16).ilog2()
}

/// The elements that a launch moves to complete a pass backward through the BN of its channels
/// (`Passed` in gather.cuh).
#[cfg(feature = "roofline")]
pub fn passed(of: &Counter<'_>) -> Traffic {
    let channels = of.count("channels");
    let added = of.count("add") * channels;
    of.moves(
        &[
            ("partial", 2 * of.count("tiles") * channels),
            ("gamma", channels),
            ("inverse", channels),
            ("dgamma", channels),
            ("dbeta", channels),
            ("plain", added),
            ("normalised", added),
        ],
        &[
            ("dgamma", channels),
            ("dbeta", channels),
            ("plain", channels),
            ("normalised", channels),
        ],
    )
}

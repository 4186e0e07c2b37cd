//! Weights as operands of products.

use super::super::driver::{Address, Source, arguments, kernels};
use super::super::error::CudaError;
use super::super::launch::Launcher;
use super::super::memory::{Offsets, WEIGHT_WORDS, WeightAt};
use super::super::program::Sources;
use super::super::program::tile::PACKED;
#[cfg(feature = "roofline")]
use super::super::traffic::{Counter, Traffic};

arguments! {
    pub struct Pack { parameters: Address, table: Address, packed: Address }
}
kernels! {
    pub struct WeightKernels { pack_weights: Pack }
}

/// The program of these kernels.
pub fn source(of: Sources<'_>) -> Source {
    let offsets = Offsets::new(of.plan);
    let len = |own: WeightAt| own.maps * own.channels * own.taps;
    let constants = [
        ("VALUES", offsets.packed_weights().map(len).sum()),
        ("WORDS", WEIGHT_WORDS),
        ("WEIGHTS", offsets.packed_weights().count()),
        ("PACKED", PACKED),
    ];
    of.plain(
        "weights",
        &[("weights.cu", include_str!("weights.cu"))],
        &constants,
    )
}

/// Packs all weights, from the parameters.
pub fn pack(on: &Launcher<'_>, kernels: &WeightKernels) -> Result<(), CudaError> {
    let blocks = on.offsets.packed_weights().map(WeightAt::blocks).sum();
    on.tiled(
        &kernels.pack_weights,
        [blocks, 1, 1],
        Pack {
            parameters: on.at(on.slots.parameters),
            table: on.at(on.slots.weight_table),
            packed: on.at(on.slots.packed),
        },
    )
}

/// The elements that a launch moves.
#[cfg(feature = "roofline")]
pub fn traffic(of: &Counter<'_>) -> Option<Traffic> {
    let values = of.constant("VALUES");
    let words = of.constant("WORDS") * of.constant("WEIGHTS");
    Some(of.moves(
        &[("parameters", values), ("table", words)],
        &[("packed", values)],
    ))
}

//! The device's memory: one allocation for all buffers of a plan, at addresses that follow from it.

mod layout;
mod offsets;
mod slots;

pub use layout::Placement;
pub(super) use layout::{Buffers, Layout, Slot};
pub(super) use offsets::{LayerAt, NormAt, Offsets, WEIGHT_WORDS, WeightAt};
pub(super) use slots::{Scratch, Slots, Stored, most_groups};

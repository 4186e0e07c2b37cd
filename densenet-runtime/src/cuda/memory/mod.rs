//! The device's memory: one allocation for all buffers of a plan, at places that follow from it.

mod arena;
mod buffers;
mod places;

pub use arena::Placement;
pub(super) use arena::{Arena, Layout, Slot};
pub(super) use buffers::{Scratch, Slots, Stored};
pub(super) use places::{LayerAt, NormAt, Places, WEIGHT_WORDS, WeightAt};

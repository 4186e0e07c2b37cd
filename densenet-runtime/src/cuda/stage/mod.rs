//! The stages of a network: a room each, with its kernels, its launches, forward and back, and what
//! they move.

pub(super) mod block;
pub(super) mod head;
pub(super) mod stem;
pub(super) mod transition;

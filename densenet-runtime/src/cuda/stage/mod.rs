//! The stages of a network. Each module has the kernels, the launches forward and backward, and the
//! elements that they move.

pub(super) mod block;
pub(super) mod head;
pub(super) mod stem;
pub(super) mod transition;

//! Kernels that all stages use, by topic: each module has their source, their arguments, the
//! elements that they move, and the launches that stages share.

pub(super) mod left;
pub(super) mod norm;
pub(super) mod step;
pub(super) mod weights;

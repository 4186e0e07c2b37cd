//! Rooms of kernels that all stages use: each has their source, their arguments, what they move, and
//! the launches that stages share.

pub(super) mod norm;
pub(super) mod step;
pub(super) mod weights;

//! Rooms of kernels that all stages use: each has their source, their arguments and launches, and
//! what they move.

pub(super) mod norm;
pub(super) mod step;
pub(super) mod weights;

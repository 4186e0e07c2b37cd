//! Convolutions over whole buffers, forward and back, and what stands between them.

pub(crate) mod finish;
pub(crate) mod pointwise;
pub(crate) mod spatial;

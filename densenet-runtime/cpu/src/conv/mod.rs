//! Convolutions over whole buffers, forward and back, and what stands between them.

pub mod finish;
pub mod pointwise;
pub mod spatial;

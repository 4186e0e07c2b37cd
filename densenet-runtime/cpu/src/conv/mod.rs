//! Convolutions over whole buffers, forward and backward, and what is done between them.

pub mod finish;
pub mod pointwise;
pub mod spatial;

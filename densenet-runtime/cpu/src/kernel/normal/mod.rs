//! Batch normalisation: one computation of statistics for each channel, one multiply-add for each
//! consumer.

mod affine;
mod gradient;
mod moments;

pub use affine::{Affine, Norm, NormSlice, NormWeights, Norms, relu};
pub use gradient::{GradientSums, Sums, Undo};
pub use moments::{Moments, Statistics};

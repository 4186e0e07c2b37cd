//! Batch normalisation: statistics once for each channel, one multiply-add for each consumer.

mod affine;
mod gradient;
mod moments;

pub(crate) use affine::{Affine, Norm, NormSlice, NormWeights, Norms, relu};
pub(crate) use gradient::{GradientSums, Sums, Undo};
pub(crate) use moments::{Moments, Statistics};

//! A DenseNet composed of dfdx's public operations only, in f64, differentiated by dfdx.
//!
//! It shares no arithmetic with the executors: feature maps are matrices of pixels x channels,
//! a convolution gathers each pixel's neighbourhood and multiplies with a matrix, pooling
//! gathers and reduces, normalisation is means and squares, concatenation is concatenation. It
//! is slow and keeps everything.
//!
//! dfdx's `slice` would be the obvious way to a neighbourhood, but in 0.13 its backward pass
//! overwrites the gradient instead of adding to it, so that overlapping slices lose all but the
//! last; `gather` adds.

mod conv;
mod maps;
mod network;
mod norm;
mod pool;

pub use network::{Derivative, Reference};

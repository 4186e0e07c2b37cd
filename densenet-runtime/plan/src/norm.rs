//! The constants of every batch normalisation.

/// Added to a variance before its root is taken.
pub const EPSILON: f64 = 1e-5;

/// The share of a batch's statistics in the new running statistics.
pub const MOMENTUM: f64 = 0.1;

//! What the whole-product tests share: the golden files, the networks in them, a reference
//! network that is none of ours, and how numbers are compared.

pub mod compare;
pub mod dfdx_way;
pub mod executor;
pub mod golden;
pub mod networks;
pub mod plain;
pub mod random;
pub mod ranks;
pub mod reference;

/// The README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

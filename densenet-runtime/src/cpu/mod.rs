//! The CPU executor.

mod block;
mod dropout;
mod engine;
mod executor;
mod head;
mod layout;
mod load;
mod network;
mod normal;
mod pointwise;
mod product;
mod pullback;
mod simd;
mod spatial;
pub(crate) mod stage;
mod stem;
mod team;
mod transition;

pub use executor::{Executor, Options};
pub use simd::Level;

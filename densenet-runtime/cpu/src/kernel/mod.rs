//! What is done with tiles in the cache.

pub mod bounds;
pub mod dropout;
pub mod element;
pub mod emit;
pub mod load;
pub mod matrix;
pub mod normal;
pub mod product;
pub mod pullback;
pub mod simd;
pub mod transpose;
pub mod winograd;

pub use product::pairs;

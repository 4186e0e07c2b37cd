//! What is done to tiles that lie in the cache.

pub(crate) mod bounds;
pub(crate) mod dropout;
pub(crate) mod element;
pub(crate) mod emit;
pub(crate) mod load;
pub(crate) mod matrix;
pub(crate) mod normal;
pub(crate) mod pairs;
pub(crate) mod product;
pub(crate) mod pullback;
pub(crate) mod simd;
pub(crate) mod transpose;
pub(crate) mod winograd;

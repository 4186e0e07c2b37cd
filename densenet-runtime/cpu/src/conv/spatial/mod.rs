//! 3x3 convolutions with padding 1, forward and back, by Winograd's way (see
//! `kernel::winograd`): patches are transformed, multiplied place by place, and transformed back.
//!
//! A tile is some whole rows of patches, each two rows of pixels (one, at the end of an image of
//! odd height), so a tile's pixels follow each other in memory. For P pixels, C channels in and
//! K maps out, each of the three products is 8 P C K operations, where the plain way has 18.

mod backward;
mod forward;
mod patches;
#[cfg(test)]
mod tests;
mod weight;

pub use backward::backward;
pub use forward::forward;
pub use weight::{add_weight, pack_backward, pack_forward};

/// Height and width of some feature maps.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub height: usize,
    pub width: usize,
}

/// A convolution's shapes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub size: Size,
    /// Channels that it reads.
    pub channels: usize,
    /// Maps that it makes.
    pub maps: usize,
}

/// What becomes of the masked gradient of a convolution's input.
pub enum Sink<'a> {
    /// It is stored: pixels x channels.
    Store(&'a mut [f32]),
    /// Gamma times it is added: rows of this stride.
    Add(&'a mut [f32], usize),
}

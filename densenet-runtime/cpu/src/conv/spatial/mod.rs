//! 3x3 convolutions with padding 1, forward and backward, by Winograd's algorithm (see
//! `kernel::winograd`): patches are transformed, multiplied place by place, and transformed back.
//!
//! A tile is some whole rows of patches. Each is two rows of pixels (one, at the end of an image of
//! odd height), so the pixels of a tile are consecutive in memory. For P pixels, C channels in and
//! K maps out, each of the three products takes 8 P C K operations; a direct convolution takes 18.

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
    /// The number of channels that it reads.
    pub channels: usize,
    /// The number of maps that it computes.
    pub maps: usize,
}

/// What is done with the masked gradient of a convolution's input.
pub enum Sink<'a> {
    /// It is stored: pixels x channels.
    Store(&'a mut [f32]),
    /// Gamma times the gradient is added to rows of this stride.
    Add(&'a mut [f32], usize),
}

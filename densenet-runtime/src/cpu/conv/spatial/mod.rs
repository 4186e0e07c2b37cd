//! 3x3 convolutions with padding 1, forward and back.
//!
//! In f32 by Winograd's way, which has 4 products where the plain way has 9 and rounds as well;
//! with operands in bfloat16 the plain way, since transformed patches would lose digits when
//! they are rounded.

mod direct;
#[cfg(test)]
mod tests;
mod winograd;

use crate::cpu::conv::pointwise::Target;
use crate::cpu::engine::Engine;
use crate::cpu::kernel::dropout::Dropout;
use crate::cpu::kernel::load::NormRelu;
use crate::cpu::kernel::normal::Norm;
use crate::cpu::kernel::product::Form;

/// Height and width of some feature maps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub height: usize,
    pub width: usize,
}

/// What becomes of the masked gradient of a convolution's input.
pub(crate) enum Sink<'a> {
    /// It is stored: pixels x channels.
    Store(&'a mut [f32]),
    /// Gamma times it is added: rows of this stride.
    Add(&'a mut [f32], usize),
}

/// Packs a weight (maps x channels x 3 x 3) for [`forward`] into `engine.packed`.
pub(crate) fn pack_forward(engine: &mut Engine, weight: &[f32], maps: usize, channels: usize) {
    match engine.form {
        Form::Plain => winograd::pack_forward(engine, weight, maps, channels),
        Form::Rounded | Form::Pairs => direct::pack_forward(engine, weight, maps, channels),
    }
}

/// Convolves the first `channels` of a buffer, BN and ReLU on the way, and measures the result
/// if asked.
///
/// The weight is in `engine.packed`; the moments are left in the engine's scratch.
pub(crate) fn forward(
    engine: &mut Engine,
    source: NormRelu<'_>,
    channels: usize,
    size: Size,
    batch: usize,
    maps: usize,
    target: Target<'_>,
    dropout: Option<Dropout>,
    measure: bool,
) {
    let forward = match engine.form {
        Form::Plain => winograd::forward,
        Form::Rounded | Form::Pairs => direct::forward,
    };
    forward(
        engine, source, channels, size, batch, maps, target, dropout, measure,
    );
}

/// Packs a weight (maps x channels x 3 x 3) for [`backward`] into `engine.packed`.
pub(crate) fn pack_backward(engine: &mut Engine, weight: &[f32], maps: usize, channels: usize) {
    match engine.form {
        Form::Plain => winograd::pack_backward(engine, weight, maps, channels),
        Form::Rounded | Form::Pairs => direct::pack_backward(engine, weight, maps, channels),
    }
}

/// Goes back through a 3x3 convolution, ReLU and the affine part of BN.
///
/// `dout` is the gradient of the maps (pixels x maps). The weight is in `engine.packed`; the
/// threads' shares of the weight's gradient, for [`add_weight`], and the sums are left in the
/// engine's scratch.
pub(crate) fn backward(
    engine: &mut Engine,
    x: (&[f32], usize),
    channels: usize,
    norm: Norm<'_>,
    size: Size,
    dout: &[f32],
    maps: usize,
    sink: Sink<'_>,
) {
    let backward = match engine.form {
        Form::Plain => winograd::backward,
        Form::Rounded | Form::Pairs => direct::backward,
    };
    backward(engine, x, channels, norm, size, dout, maps, sink);
}

/// Adds the threads' shares of a weight's gradient into `gradient` (maps x channels x 3 x 3).
pub(crate) fn add_weight(engine: &mut Engine, gradient: &mut [f32], maps: usize, channels: usize) {
    match engine.form {
        Form::Plain => winograd::add_weight(engine, gradient, maps, channels),
        Form::Rounded | Form::Pairs => direct::add_weight(engine, gradient, maps, channels),
    }
}

//! The convolutions of a dense layer, each with its kernels.

use super::driver::Address;
use super::memory::NormAt;

pub(super) mod pointwise;
pub(super) mod spatial;

/// What a convolution reads: the first channels of a row, with BN.
#[derive(Clone, Copy)]
pub(super) struct Input {
    pub x: Address,
    pub norm: NormAt,
}

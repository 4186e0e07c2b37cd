//! The input pixels of a network.

use std::ops::Range;

/// The pixels of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Pixels<'a> {
    /// Batch x channels x height x width, ready for the network.
    Nchw(&'a [f32]),
    /// Batch x height x width x channels, bytes; the network sees
    /// `(byte / 255 - mean) / std` of each channel.
    Nhwc {
        /// The bytes.
        bytes: &'a [u8],
        /// Mean of each channel, of pixels in [0, 1].
        mean: &'a [f32],
        /// Standard deviation of each channel, of pixels in [0, 1].
        std: &'a [f32],
    },
    /// Batch x height x width x channels, floats in [0, 1]; the network sees
    /// `(value - mean) / std` of each channel. For pictures of more than 8 bits, and mixed ones.
    NhwcFloats {
        /// The values.
        values: &'a [f32],
        /// Mean of each channel, of pixels in [0, 1].
        mean: &'a [f32],
        /// Standard deviation of each channel, of pixels in [0, 1].
        std: &'a [f32],
    },
}

impl<'a> Pixels<'a> {
    /// The number of values of all images together.
    pub fn count(&self) -> usize {
        match self {
            Self::Nchw(values) | Self::NhwcFloats { values, .. } => values.len(),
            Self::Nhwc { bytes, .. } => bytes.len(),
        }
    }

    /// Some of the values; `None` if there are not that many.
    pub fn slice(self, range: Range<usize>) -> Self {
        match self {
            Self::Nchw(values) => Self::Nchw(values.get(range).unwrap_or_default()),
            Self::Nhwc { bytes, mean, std } => Self::Nhwc {
                bytes: bytes.get(range).unwrap_or_default(),
                mean,
                std,
            },
            Self::NhwcFloats { values, mean, std } => Self::NhwcFloats {
                values: values.get(range).unwrap_or_default(),
                mean,
                std,
            },
        }
    }

    /// Each channel's mean and standard deviation for normalising the pixels; `None` if they are
    /// ready for the network.
    pub fn norm(self) -> Option<(&'a [f32], &'a [f32])> {
        match self {
            Self::Nchw(_) => None,
            Self::Nhwc { mean, std, .. } | Self::NhwcFloats { mean, std, .. } => Some((mean, std)),
        }
    }
}

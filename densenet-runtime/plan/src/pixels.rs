//! The pixels that a network is given.

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
}

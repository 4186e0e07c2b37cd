//! The last BN, ReLU and global average pool; the classifier.

use super::memory::Shared;
use super::pointwise::Maps;
use super::product::{Contraction, Out, Right, Start, count, multiply};
use super::share;
use crate::kernel::bounds::span;
use crate::kernel::product::Rows;
use crate::kernel::simd::{Kernel, Simd};

/// BN, ReLU and the mean of each map.
pub(super) struct Pool<'a> {
    pub maps: Maps<'a>,
    pub channels: usize,
    /// The pixels of one image.
    pub pixels: usize,
    pub images: usize,
    /// Images x stride.
    pub features: Shared<'a>,
    pub stride: usize,
    /// The index of the thread that runs this, and the number of threads that share the work.
    pub thread: usize,
    pub threads: usize,
}

impl Kernel for Pool<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Maps {
            values,
            stride,
            affine,
        } = self.maps;
        let vectors = self.channels.div_ceil(S::LANES);
        let end = vectors.saturating_mul(S::LANES);
        assert!(end <= affine.scale.len() && end <= affine.shift.len() && end <= stride);
        let all = self.images.saturating_mul(self.pixels);
        assert!(span(all, stride, end) <= values.len());
        let mean = [1.0 / self.pixels as f32];
        // The vectors of all images are numbered consecutively.
        for unit in share(self.images * vectors, self.thread, self.threads) {
            let (image, channel) = (unit / vectors, unit % vectors * S::LANES);
            let into = self
                .features
                .pointer(image * self.stride + channel, S::LANES);
            // SAFETY: the assertions bound all vectors of all pixels; each unit belongs to one
            // thread.
            unsafe {
                let scale = simd.load(affine.scale.as_ptr().add(channel));
                let shift = simd.load(affine.shift.as_ptr().add(channel));
                let mut sum = simd.zero();
                for pixel in image * self.pixels..(image + 1) * self.pixels {
                    let x = simd.load(values.as_ptr().add(pixel * stride + channel));
                    sum = simd.add(sum, simd.relu(simd.fma(x, scale, shift)));
                }
                simd.store(into, simd.fma(sum, simd.splat(mean.as_ptr()), simd.zero()));
            }
        }
    }
}

/// The classifier. The threads divide its classes.
pub(super) struct Classify<'a> {
    /// Images x stride.
    pub features: &'a [f32],
    pub stride: usize,
    pub images: usize,
    pub weight: Right<'a>,
    /// The bias of each class, padded to whole vectors.
    pub bias: &'a [f32],
    pub out: Out<'a>,
    /// The index of the thread that runs this, and the number of threads that share the work.
    pub thread: usize,
    pub threads: usize,
}

impl Kernel for Classify<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let panels = count(self.weight.panels, S::LANES);
        let rows = Rows {
            values: self.features,
            stride: self.stride,
            count: self.images,
        };
        let depth = Contraction {
            taps: &[0],
            channels: self.weight.panels.depth,
            first: 0,
        };
        let panels = share(panels, self.thread, self.threads);
        let start = Start::Bias(self.bias);
        // SAFETY: each thread writes classes of its own.
        unsafe { multiply(simd, rows, depth, self.weight, panels, self.out, start) };
    }
}

//! What surrounds a pass: the images' way in, and gradient descent.

use super::*;

impl Pass<'_> {
    /// From channels x area, image by image, at `raw`.
    pub fn images_from_nchw(&self, raw: Address) -> Result<(), CudaError> {
        let (channels, area) = self.image();
        self.each(
            &self.kernels.step.images_from_nchw,
            self.batch * area * channels,
            values![raw, self.at(self.slots.images), channels, area, self.batch],
        )
    }

    /// From bytes, pixels x channels, at `raw`, with the normalisation that was uploaded.
    pub fn images_from_bytes(&self, raw: Address) -> Result<(), CudaError> {
        let (channels, area) = self.image();
        self.each(
            &self.kernels.step.images_from_bytes,
            self.batch * area * channels,
            values![
                raw,
                self.at(self.slots.pixel_norm),
                self.at(self.slots.images),
                channels,
                self.batch * area
            ],
        )
    }

    /// Gradients as zeros, and the running statistics kept.
    pub(super) fn start(&self) -> Result<(), CudaError> {
        let count = self.plan.parameter_count();
        let statistics = self.plan.running_count();
        self.each(
            &self.kernels.step.start,
            count.max(statistics),
            values![
                self.at(self.slots.gradients),
                self.at(self.slots.running),
                self.at(self.slots.running_before),
                self.scalars(),
                count,
                statistics,
            ],
        )
    }

    /// Gradient descent on all parameters.
    pub fn descend(&self) -> Result<(), CudaError> {
        let count = self.plan.parameter_count();
        self.each(
            &self.kernels.step.descend,
            count,
            values![
                self.at(self.slots.parameters),
                self.at(self.slots.momentum),
                self.at(self.slots.gradients),
                self.scalars(),
                count
            ],
        )
    }

    /// Channels and pixels of an image.
    fn image(&self) -> (usize, usize) {
        let stem = self.plan.stem();
        (stem.channels, stem.height * stem.width)
    }
}

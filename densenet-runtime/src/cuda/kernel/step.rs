//! What precedes and follows a pass: conversion of the images, the start of a step, and gradient
//! descent.

use super::super::driver::{Address, Source, arguments, kernels};
use super::super::error::CudaError;
use super::super::launch::Launcher;
use super::super::program::Sources;
#[cfg(feature = "roofline")]
use super::super::traffic::{Counter, Traffic};

arguments! {
    pub struct FromNchw { from: Address, into: Address, channels: usize, area: usize, batch: usize }
    pub struct FromBytes {
        from: Address, norm: Address, into: Address, channels: usize, pixels: usize,
    }
    pub struct Start {
        gradient: Address, running: Address, before: Address, scalars: Address,
        count: usize, statistics: usize,
    }
    pub struct Descend {
        parameters: Address, momentum: Address, gradient: Address, scalars: Address, count: usize,
    }
}
kernels! {
    pub struct StepKernels {
        images_from_nchw: FromNchw,
        images_from_bytes: FromBytes,
        start: Start,
        descend: Descend,
    }
}

/// The program of these kernels.
pub fn source(of: Sources<'_>) -> Source {
    of.plain("step", ("step.cu", include_str!("step.cu")), &[])
}

/// The launches that precede and follow a pass.
pub struct Surroundings<'a> {
    pub on: &'a Launcher<'a>,
    pub kernels: &'a StepKernels,
}

impl Surroundings<'_> {
    /// Converts images from channels x area, image by image, at `from`.
    pub fn images_from_nchw(&self, from: Address) -> Result<(), CudaError> {
        let (channels, area) = self.image();
        let batch = self.on.batch;
        self.on.each(
            &self.kernels.images_from_nchw,
            batch * area * channels,
            FromNchw {
                from,
                into: self.on.at(self.on.slots.images),
                channels,
                area,
                batch,
            },
        )
    }

    /// Converts images from bytes, pixels x channels, at `from`, with the normalisation that was
    /// uploaded.
    pub fn images_from_bytes(&self, from: Address) -> Result<(), CudaError> {
        let (channels, area) = self.image();
        let pixels = self.on.batch * area;
        self.on.each(
            &self.kernels.images_from_bytes,
            pixels * channels,
            FromBytes {
                from,
                norm: self.on.at(self.on.slots.pixel_norm),
                into: self.on.at(self.on.slots.images),
                channels,
                pixels,
            },
        )
    }

    /// Sets the gradients to zero, and keeps a copy of the running statistics.
    pub fn start(&self) -> Result<(), CudaError> {
        let (on, slots) = (self.on, self.on.slots);
        let count = on.plan.parameter_count();
        let statistics = on.plan.running_count();
        on.each(
            &self.kernels.start,
            count.max(statistics),
            Start {
                gradient: on.at(slots.gradients),
                running: on.at(slots.running),
                before: on.at(slots.running_before),
                scalars: on.scalars(),
                count,
                statistics,
            },
        )
    }

    /// Gradient descent on all parameters.
    pub fn descend(&self) -> Result<(), CudaError> {
        let (on, slots) = (self.on, self.on.slots);
        let count = on.plan.parameter_count();
        on.each(
            &self.kernels.descend,
            count,
            Descend {
                parameters: on.at(slots.parameters),
                momentum: on.at(slots.momentum),
                gradient: on.at(slots.gradients),
                scalars: on.scalars(),
                count,
            },
        )
    }

    /// Channels and pixels of an image.
    fn image(&self) -> (usize, usize) {
        let stem = self.on.plan.stem();
        (stem.channels, stem.height * stem.width)
    }
}

/// The elements that a launch moves.
#[cfg(feature = "roofline")]
pub fn traffic(of: &Counter<'_>) -> Option<Traffic> {
    let count = of.count("count");
    Some(match of.kernel() {
        "images_from_nchw" => {
            let values = of.count("batch") * of.count("area") * of.count("channels");
            of.moves(&[("from", values)], &[("into", values)])
        }
        "images_from_bytes" => {
            let values = of.count("pixels") * of.count("channels");
            of.moves(
                &[("from", values), ("norm", 2 * of.count("channels"))],
                &[("into", values)],
            )
        }
        // For a step that does not accumulate.
        "start" => {
            let statistics = of.count("statistics");
            // The scalars: whether to accumulate, and whether a loss was not finite.
            of.moves(
                &[("running", statistics), ("scalars", 8)],
                &[("gradient", count), ("before", statistics)],
            )
        }
        "descend" => of.moves(
            &[
                ("parameters", count),
                ("momentum", count),
                ("gradient", count),
                // The scalars: learning rate, momentum, decay, whether it is Nesterov's, and
                // whether to descend.
                ("scalars", 20),
            ],
            &[("parameters", count), ("momentum", count)],
        ),
        _ => return None,
    })
}

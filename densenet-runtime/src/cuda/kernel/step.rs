//! What precedes and follows a pass: conversion of the images, and of maps on their way out, the start
//! of a step, and gradient descent.

use super::super::driver::{Address, Source, arguments, kernels};
use super::super::error::CudaError;
use super::super::launch::Launcher;
use super::super::memory::NormAt;
use super::super::program::{NORM_BLOCKS, Sources};
#[cfg(feature = "roofline")]
use super::super::traffic::{Counter, Traffic};
use crate::executor::Pixels;

/// Pixels and channels of a tile of maps that are turned round.
const SIDE: usize = 32;
/// Stores of a thread that sets gradients to zero.
const SET: usize = 4;

arguments! {
    pub struct FromNchw { from: Address, into: Address, channels: usize, area: usize, batch: usize }
    pub struct FromBytes {
        from: Address, norm: Address, into: Address, channels: usize, pixels: usize,
    }
    pub struct FromFloats {
        from: Address, norm: Address, into: Address, channels: usize, pixels: usize,
    }
    pub struct MapsToNchw {
        x: Address, scale: Address, shift: Address, into: Address, channels: usize, area: usize,
        normalised: bool,
    }
    pub struct Start {
        gradient: Address, running: Address, before: Address, scalars: Address,
        count: usize, statistics: usize,
    }
    pub struct Squares { gradient: Address, sums: Address, count: usize }
    pub struct Clip { sums: Address, scalars: Address, blocks: usize }
    pub struct Descend {
        parameters: Address, momentum: Address, gradient: Address, scalars: Address,
        groups: Address, group_count: usize, count: usize,
    }
    pub struct DescendAdamW {
        parameters: Address, first: Address, second: Address, gradient: Address,
        scalars: Address, groups: Address, group_count: usize, count: usize,
    }
    pub struct Average { average: Address, values: Address, scalars: Address, count: usize }
}
kernels! {
    pub struct StepKernels {
        images_from_nchw: FromNchw,
        images_from_bytes: FromBytes,
        images_from_floats: FromFloats,
        maps_to_nchw: MapsToNchw,
        start: Start,
        squares: Squares,
        clip: Clip,
        descend: Descend,
        descend_adamw: DescendAdamW,
        average: Average,
    }
}

/// The launches of a descent, which do not depend on its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// AdamW; else SGD.
    pub adamw: bool,
    pub clips: bool,
    pub averages: bool,
    /// The number of groups of parameters.
    pub groups: usize,
}

/// The program of these kernels.
pub fn source(of: Sources<'_>) -> Source {
    of.plain("step", &[("step.cu", include_str!("step.cu"))], &[])
}

/// The launches that precede and follow a pass.
pub struct Surroundings<'a> {
    pub on: &'a Launcher<'a>,
    pub kernels: &'a StepKernels,
}

impl Surroundings<'_> {
    /// Converts a batch's images, which were copied to `from`; their normalisation was uploaded.
    pub fn images(&self, pixels: Pixels<'_>, from: Address) -> Result<(), CudaError> {
        match pixels {
            Pixels::Nchw(_) => self.images_from_nchw(from),
            Pixels::Nhwc { .. } => self.images_from_bytes(from),
            Pixels::NhwcFloats { .. } => self.images_from_floats(from),
        }
    }

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

    /// Images from floats in [0, 1], pixels x channels, at `from`, with the normalisation that was
    /// uploaded.
    pub fn images_from_floats(&self, from: Address) -> Result<(), CudaError> {
        let (channels, area) = self.image();
        let pixels = self.on.batch * area;
        self.on.each(
            &self.kernels.images_from_floats,
            pixels * channels,
            FromFloats {
                from,
                norm: self.on.at(self.on.slots.pixel_norm),
                into: self.on.at(self.on.slots.images),
                channels,
                pixels,
            },
        )
    }

    /// Writes all maps of a block as callers get them, channels first; through a BN and ReLU, if there
    /// is one.
    pub fn maps_to_nchw(
        &self,
        block: usize,
        norm: Option<NormAt>,
        into: Address,
    ) -> Result<(), CudaError> {
        let on = self.on;
        let shape = &on.plan.blocks()[block];
        let (channels, area) = (shape.output(), shape.pixels());
        let normalised = norm.is_some();
        // Without a BN, nothing is read there.
        let norm = norm.unwrap_or_default();
        let tiles = on.batch * area.div_ceil(SIDE);
        on.tiled(
            &self.kernels.maps_to_nchw,
            [tiles, channels.div_ceil(SIDE), 1],
            MapsToNchw {
                x: on.at(on.slots.blocks[block].maps),
                scale: on.scale(norm),
                shift: on.shift(norm),
                into,
                channels,
                area,
                normalised,
            },
        )
    }

    /// Sets the gradients to zero, and keeps a copy of the running statistics.
    pub fn start(&self) -> Result<(), CudaError> {
        let (on, slots) = (self.on, self.on.slots);
        let count = slots.trainable[0].len();
        let statistics = on.plan.running_count();
        on.each(
            &self.kernels.start,
            count.div_ceil(4 * SET).max(statistics),
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

    /// A step along the gradients.
    pub fn descend(&self, manner: Manner) -> Result<(), CudaError> {
        let (on, slots) = (self.on, self.on.slots);
        let [trained, statistics] = &slots.trainable;
        let count = trained.len();
        let parameters = on.parameter(trained.start);
        let (gradient, momentum) = (on.at(slots.gradients), on.at(slots.momentum));
        let groups = on.at(slots.groups);
        let (scalars, group_count) = (on.scalars(), manner.groups);
        if manner.clips {
            let sums = on.at(slots.norm_sums);
            on.reductions(
                &self.kernels.squares,
                NORM_BLOCKS,
                Squares {
                    gradient,
                    sums,
                    count,
                },
            )?;
            on.reductions(
                &self.kernels.clip,
                1,
                Clip {
                    sums,
                    scalars,
                    blocks: NORM_BLOCKS,
                },
            )?;
        }
        if manner.adamw {
            on.each(
                &self.kernels.descend_adamw,
                count,
                DescendAdamW {
                    parameters,
                    first: momentum,
                    second: on.at(slots.second_moments),
                    gradient,
                    scalars,
                    groups,
                    group_count,
                    count,
                },
            )?;
        } else {
            on.each(
                &self.kernels.descend,
                count,
                Descend {
                    parameters,
                    momentum,
                    gradient,
                    scalars,
                    groups,
                    group_count,
                    count,
                },
            )?;
        }
        if !manner.averages {
            return Ok(());
        }
        for (average, values, own) in [
            (slots.average, slots.parameters, trained),
            (slots.average_running, slots.running, statistics),
        ] {
            let count = own.len();
            on.each(
                &self.kernels.average,
                count,
                Average {
                    average: on.at(average).floats(own.start),
                    values: on.at(values).floats(own.start),
                    scalars,
                    count,
                },
            )?;
        }
        Ok(())
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
    // With one group, its shares; with several, also where each but the first begins.
    let groups = || 3 * of.count("group_count") - 1;
    Some(match of.kernel() {
        "images_from_nchw" => {
            let values = of.count("batch") * of.count("area") * of.count("channels");
            of.moves(&[("from", values)], &[("into", values)])
        }
        "images_from_bytes" | "images_from_floats" => {
            let values = of.count("pixels") * of.count("channels");
            of.moves(
                &[("from", values), ("norm", 2 * of.count("channels"))],
                &[("into", values)],
            )
        }
        "maps_to_nchw" => {
            let (channels, area) = (of.count("channels"), of.count("area"));
            let images = of.grid()[0] / area.div_ceil(SIDE as u64);
            let (values, norm) = (images * area * channels, of.count("normalised") * channels);
            of.moves(
                &[("x", values), ("scale", norm), ("shift", norm)],
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
                // The scalars: learning rate, momentum, decay, whether it is Nesterov's, the
                // largest norm, and whether to descend.
                ("scalars", 24),
                ("groups", groups()),
            ],
            &[("parameters", count), ("momentum", count)],
        ),
        "squares" => of.moves(&[("gradient", count)], &[("sums", NORM_BLOCKS as u64)]),
        "clip" => of.moves(
            &[("sums", NORM_BLOCKS as u64), ("scalars", 8)],
            &[("scalars", 4)],
        ),
        "descend_adamw" => of.moves(
            &[
                ("parameters", count),
                ("first", count),
                ("second", count),
                ("gradient", count),
                // The scalars: learning rate, decay, five of AdamW's, the largest norm, and whether
                // to descend.
                ("scalars", 36),
                ("groups", groups()),
            ],
            &[("parameters", count), ("first", count), ("second", count)],
        ),
        "average" => of.moves(
            &[("average", count), ("values", count), ("scalars", 8)],
            &[("average", count)],
        ),
        _ => return None,
    })
}

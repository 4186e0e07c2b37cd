//! A pass over frozen stages, phase by phase.

use std::ops::Range;

use super::FoldedStages;
use super::memory::Shared;
use super::outputs::{Classed, Leave};
use super::pointwise::{Affine, Maps, Normalise, Pointwise};
use super::product::{Out, Right};
use super::program::{
    BlockStep, ClassifierStep, FeaturesStep, FrozenProgram, LayerStep, Norm, Packed,
};
use super::winograd::Spatial;
use super::{head, stem};
use crate::engine::{Parts, padded, shares, split_rows};
use crate::kernel::load;
use crate::kernel::simd::{Kernel, Level};
use crate::kernel::winograd::PLACES;
use crate::team::Team;
use densenet_plan::{Block, MapsOf, Pixels, Plan};

/// What a pass works with.
struct Pass<'a> {
    plan: &'a Plan,
    program: &'a FrozenProgram,
    level: Level,
    team: &'a mut Team,
    weights: &'a [f32],
    activations: Shared<'a>,
    outputs: Shared<'a>,
    pixels: Pixels<'a>,
    /// The images of the call.
    images: usize,
}

/// Where the output of the last stage goes.
pub enum Output<'a> {
    /// The stages are the whole network; logits, features and maps stay with them.
    Inference(MapsOf<'a>),
    /// The pooled features, if the classifier alone trains: images x features.
    Features(&'a mut [f32]),
    /// The maps of the last block that frozen stages write to: pixels x stride. The first channels are written.
    Maps(&'a mut [f32], usize),
}

/// From pixels to the output of the last stage.
pub(super) fn run(
    stages: &mut FoldedStages,
    plan: &Plan,
    team: &mut Team,
    (pixels, images): (Pixels<'_>, usize),
    mut into: Output<'_>,
) {
    let mut pass = Pass {
        plan,
        program: &stages.program,
        level: stages.level,
        team,
        weights: &stages.weights,
        activations: Shared::new(&mut stages.activations),
        outputs: Shared::new(&mut stages.outputs),
        pixels,
        images,
    };
    let program = pass.program;
    let (Some(step), Some(last)) = (program.blocks.last(), program.blocks.len().checked_sub(1))
    else {
        return;
    };
    let pixels = plan.blocks()[last].pixels();
    for first in (0..images).step_by(step.group) {
        let count = step.group.min(images - first);
        pass.block(last, first, count);
        if let Output::Maps(values, stride) = &mut into {
            let rows = first * pixels * *stride..(first + count) * pixels * *stride;
            pass.take(step, &mut values[rows], *stride);
        } else if let Some(features) = program.features {
            pass.pool(step, features, first..first + count, pixels);
        }
    }
    match (into, program.features, program.classifier) {
        (Output::Features(values), Some(step), _) => {
            pass.copy_rows(step.at, step.stride, values, step.norm.channels);
        }
        (Output::Inference(of), Some(features), Some(step)) => {
            pass.classify(features, step, images);
            pass.give(features, step, of, &mut stages.mapped);
        }
        _ => {}
    }
}

impl<'a> Pass<'a> {
    /// Runs a phase. Each thread gets its own kernel, made from its index, the number of threads
    /// and its scratch.
    fn phase<K: Kernel>(&mut self, kernel: impl Fn(usize, usize, Shared<'a>) -> K + Sync) {
        let (level, threads) = (self.level, self.team.threads());
        let FrozenProgram {
            scratch,
            scratch_len,
            ..
        } = *self.program;
        let activations = self.activations;
        self.team.run(&|thread| {
            let start = scratch + thread * scratch_len;
            let scratch = activations.part(start..start + scratch_len);
            level.run(kernel(thread, threads, scratch));
        });
    }

    fn right(&self, packed: Packed) -> Right<'a> {
        let len = packed.panels.len(self.level.lanes());
        Right {
            panels: packed.panels,
            values: &self.weights[packed.at..][..len],
        }
    }

    fn vector(&self, at: usize, len: usize) -> &'a [f32] {
        &self.weights[at..][..padded(len)]
    }

    /// The feature maps of a block, read through a BN.
    fn maps(&self, step: &BlockStep, norm: Norm) -> Maps<'a> {
        let part = self.activations.part(step.maps..step.maps + step.len);
        Maps {
            // SAFETY: a phase that reads a block's maps writes other parts of the arena only.
            values: unsafe { part.read() },
            stride: step.stride,
            affine: Affine {
                scale: self.vector(norm.at, norm.channels),
                shift: self.vector(norm.shift(), norm.channels),
            },
        }
    }

    /// Columns of a block's feature maps, written from a pixel on.
    fn columns(&self, step: &BlockStep, pixel: usize, column: usize) -> Out<'a> {
        Out {
            values: self.activations.part(step.maps..step.maps + step.len),
            at: pixel * step.stride + column,
            stride: step.stride,
            relu: false,
        }
    }

    /// Pools the features of a group of images, with this many pixels each.
    fn pool(
        &mut self,
        step: &BlockStep,
        features: FeaturesStep,
        images: Range<usize>,
        pixels: usize,
    ) {
        let FeaturesStep { norm, at, stride } = features;
        let maps = self.maps(step, norm);
        let into = at + images.start * stride..at + images.end * stride;
        let into = self.activations.part(into);
        let count = images.len();
        self.phase(|thread, threads, _| head::Pool {
            maps,
            channels: norm.channels,
            pixels,
            images: count,
            features: into,
            stride,
            thread,
            threads,
        });
        if self.program.outputs.wanted.needs_last_maps() {
            let channels = norm.channels;
            let at = self.program.outputs.last_maps + images.start * channels * pixels;
            let out = self.outputs.part(at..at + count * channels * pixels);
            self.phase(|thread, threads, _| Leave {
                values: maps.values,
                stride: maps.stride,
                affine: Some(maps.affine),
                channels,
                pixels,
                images: count,
                out,
                thread,
                threads,
            });
        }
    }

    fn classify(&mut self, features: FeaturesStep, step: ClassifierStep, images: usize) {
        let part = features.at..features.at + images * features.stride;
        // SAFETY: the phase writes logits only.
        let values = unsafe { self.activations.part(part).read() };
        let weight = self.right(step.weight);
        let bias = self.vector(step.bias, step.weight.panels.columns);
        let out = Out {
            values: self.activations,
            at: step.at,
            stride: step.stride,
            relu: false,
        };
        self.phase(|thread, threads, _| head::Classify {
            features: values,
            stride: features.stride,
            images,
            weight,
            bias,
            out,
            thread,
            threads,
        });
    }

    /// Copies a group's maps out: as many pixels as there are rows of `stride`.
    fn take(&mut self, step: &BlockStep, into: &mut [f32], stride: usize) {
        let part = self.activations.part(step.maps..step.maps + step.len);
        // SAFETY: nothing writes to the maps while they are copied.
        let from = unsafe { part.read() };
        let shares = shares(into.len() / stride, self.team.threads());
        let rows = split_rows(into, stride, &shares);
        let mut parts: Parts<_> = shares.into_iter().zip(rows).collect();
        self.team.each(&mut parts, |_, (rows, into)| {
            let from = from[rows.start * step.stride..].chunks(step.stride);
            for (into, from) in into.chunks_exact_mut(stride).zip(from) {
                into[..step.channels].copy_from_slice(&from[..step.channels]);
            }
        });
    }

    /// Copies rows of `columns` out of rows of `stride`.
    fn copy_rows(&self, at: usize, stride: usize, into: &mut [f32], columns: usize) {
        let rows = into.len() / columns;
        // SAFETY: nothing writes while they are copied.
        let from = unsafe { self.activations.part(at..at + rows * stride).read() };
        for (into, from) in into
            .chunks_exact_mut(columns)
            .zip(from.chunks_exact(stride))
        {
            into.copy_from_slice(&from[..columns]);
        }
    }

    /// Fills a block's feature maps for the images from `first` on, at most one group.
    fn block(&mut self, index: usize, first: usize, images: usize) {
        let program = self.program;
        let (step, block) = (&program.blocks[index], &self.plan.blocks()[index]);
        match index.checked_sub(1) {
            None => {
                for image in 0..images {
                    let out = self.columns(step, image * block.pixels(), 0);
                    self.stem(first + image, out);
                }
            }
            Some(before) => {
                let group = program.blocks[before].group;
                for start in (0..images).step_by(group) {
                    let count = group.min(images - start);
                    self.block(before, first + start, count);
                    let out = self.columns(step, start * block.pixels(), 0);
                    self.transition(before, count, out);
                }
            }
        }
        for (layer, inner) in step.layers.iter().zip(block.iter()) {
            let maps = inner.bottleneck.unwrap_or(inner.input);
            self.inner(layer, step, block, images, maps);
            self.spatial(layer, step, block, images, (maps, inner.input));
        }
        if program.outputs.wanted.block_maps {
            self.leave(index, first, images);
        }
    }

    /// Copies out the output of a block, channels first, image by image.
    fn leave(&mut self, index: usize, first: usize, images: usize) {
        let blocks = self.plan.blocks();
        let len = |block: &Block| block.output() * block.pixels();
        let before: usize = blocks[..index].iter().map(len).sum();
        let (step, block) = (&self.program.blocks[index], &blocks[index]);
        let at = self.program.outputs.block_maps + before * self.images + first * len(block);
        let out = self.outputs.part(at..at + images * len(block));
        let maps = self.activations.part(step.maps..step.maps + step.len);
        // SAFETY: the phase writes the outputs only.
        let values = unsafe { maps.read() };
        self.phase(|thread, threads, _| Leave {
            values,
            stride: step.stride,
            affine: None,
            channels: block.output(),
            pixels: block.pixels(),
            images,
            out,
            thread,
            threads,
        });
    }

    /// Returns logits, features and class maps.
    fn give(
        &mut self,
        pooled: FeaturesStep,
        classifier: ClassifierStep,
        of: MapsOf<'_>,
        mapped: &mut [usize],
    ) {
        let (program, plan, images) = (self.program, self.plan, self.images);
        let (kept, classes) = (&program.outputs, plan.classes());
        let features = pooled.norm.channels;
        let part = |at: usize, each: usize| {
            let part = self.outputs.part(at..at + images * each);
            // SAFETY: no phase runs, and parts do not overlap.
            unsafe { part.write() }
        };
        let into = part(kept.features, features);
        self.copy_rows(pooled.at, pooled.stride, into, features);
        let logits = part(kept.logits, classes);
        self.copy_rows(classifier.at, classifier.stride, logits, classes);
        let wanted = of.count(classes);
        if wanted == 0 {
            return;
        }
        let mapped = &mut mapped[..images * wanted];
        let of_images = mapped.chunks_exact_mut(wanted);
        for (logits, chosen) in logits.chunks_exact(classes).zip(of_images) {
            of.choose(logits, chosen);
        }
        let pixels = plan.head().pixels();
        let last = kept.last_maps..kept.last_maps + images * features * pixels;
        let at = kept.class_maps;
        let out = self.outputs.part(at..at + mapped.len() * pixels);
        // SAFETY: the phase writes the class maps only.
        let last = unsafe { self.outputs.part(last).read() };
        let rows = &self.weights[classifier.rows..][..classes * features];
        let mapped = &*mapped;
        self.phase(|thread, threads, _| Classed {
            last,
            rows,
            mapped,
            wanted,
            channels: features,
            pixels,
            out,
            thread,
            threads,
        });
    }

    fn stem(&mut self, image: usize, out: Out<'a>) {
        let (program, stem, pixels) = (self.program, self.plan.stem(), self.pixels);
        let len = stem::padded_image(stem).1;
        let padded = self.activations.part(program.image..program.image + len);
        let threads = self.team.threads();
        self.team.run(&|thread| {
            stem::Pad {
                stem,
                pixels,
                image,
                into: padded,
                thread,
                threads,
            }
            .run();
        });
        let weight = self.right(program.stem);
        let bias = self.vector(program.stem_bias, stem.maps);
        // SAFETY: the phase writes the block's maps and the scratch only.
        let padded = unsafe { padded.read() };
        self.phase(|thread, threads, scratch| stem::Convolve {
            stem,
            image: padded,
            weight,
            bias,
            out,
            thread,
            threads,
            scratch,
        });
    }

    /// The input of a layer's 3x3 convolution: `maps` values for each pixel.
    fn inner(
        &mut self,
        layer: &LayerStep,
        step: &BlockStep,
        block: &Block,
        images: usize,
        maps: usize,
    ) {
        let pixels = images * block.pixels();
        let out = Out {
            values: self
                .activations
                .part(self.program.inner..self.program.inner + self.program.inner_len),
            at: 0,
            stride: padded(maps),
            relu: false,
        };
        let source = self.maps(step, layer.norm);
        match layer.compress {
            Some(compress) => {
                let weight = self.right(compress.weight);
                let bias = Some(self.vector(compress.bias, maps));
                self.phase(|thread, threads, scratch| Pointwise {
                    maps: source,
                    pool: None,
                    pixels,
                    channels: layer.norm.channels,
                    weight,
                    bias,
                    out,
                    thread,
                    threads,
                    scratch,
                });
            }
            None => self.phase(|thread, threads, _| Normalise {
                maps: source,
                channels: maps,
                pixels,
                out,
                thread,
                threads,
            }),
        }
    }

    /// The 3x3 convolution of a layer, into the block's maps from `column` on.
    fn spatial(
        &mut self,
        layer: &LayerStep,
        step: &BlockStep,
        block: &Block,
        images: usize,
        (channels, column): (usize, usize),
    ) {
        let program = self.program;
        let part = program.inner..program.inner + program.inner_len;
        // SAFETY: the phase writes the block's maps and the scratch only.
        let values = unsafe { self.activations.part(part).read() };
        let len = PLACES * layer.spatial.panels.len(self.level.lanes());
        let weight = &self.weights[layer.spatial.at..][..len];
        let out = self.columns(step, 0, column);
        let (maps, form) = (layer.spatial.panels.columns, layer.spatial.panels.form);
        self.phase(|thread, threads, scratch| Spatial {
            values,
            stride: padded(channels),
            channels,
            form,
            height: block.height,
            width: block.width,
            images,
            weight,
            maps,
            out,
            thread,
            threads,
            scratch,
        });
    }

    fn transition(&mut self, index: usize, images: usize, out: Out<'a>) {
        let program = self.program;
        let step = &program.transitions[index];
        let transition = &self.plan.transitions()[index];
        let pool = load::Pool {
            height: transition.height,
            width: transition.width,
        };
        let maps = self.maps(&program.blocks[index], step.norm);
        let weight = self.right(step.weight);
        self.phase(|thread, threads, scratch| Pointwise {
            maps,
            pool: Some(pool),
            pixels: images * pool.pixels(),
            channels: transition.input,
            weight,
            bias: None,
            out,
            thread,
            threads,
            scratch,
        });
    }
}

//! Folds BN into the convolution before it, and packs the weights.

use super::program::{FrozenProgram, Norm, Packed};
use crate::engine::padded;
use crate::kernel::winograd::{PLACES, of_kernel};
use densenet_plan::norm::EPSILON;
use densenet_plan::{NormTensors, Plan, Span};

/// A network's numbers.
#[derive(Clone, Copy)]
struct Source<'a> {
    parameters: &'a [f32],
    running: &'a [f32],
}

/// BN as a multiply-add.
struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl<'a> Source<'a> {
    fn weight(&self, at: Span) -> &'a [f32] {
        at.of(self.parameters)
    }

    fn norm(&self, at: &NormTensors) -> Affine {
        let [gamma, beta] = [at.scale, at.bias].map(|span| span.of(self.parameters));
        let [mean, variance] = [at.mean, at.variance].map(|span| span.of(self.running));
        let scale: Vec<f32> = gamma
            .iter()
            .zip(variance)
            .map(|(gamma, variance)| gamma / (variance + EPSILON as f32).sqrt())
            .collect();
        let moved = mean.iter().zip(&scale).map(|(mean, scale)| mean * scale);
        let shift = beta.iter().zip(moved).map(|(beta, moved)| beta - moved);
        Affine {
            shift: shift.collect(),
            scale,
        }
    }
}

/// The arena that the numbers are written to.
struct Writer<'a> {
    values: &'a mut [f32],
    lanes: usize,
}

impl Writer<'_> {
    fn vector(&mut self, at: usize, values: &[f32]) {
        self.values[at..][..values.len()].copy_from_slice(values);
    }

    fn norm(&mut self, norm: Norm, affine: &Affine) {
        self.vector(norm.at, &affine.scale);
        self.vector(norm.at + padded(norm.channels), &affine.shift);
    }

    /// Packs a weight of maps x channels.
    fn pack(&mut self, packed: Packed, channels: usize, at: impl Fn(usize, usize) -> f32) {
        let into = &mut self.values[packed.at..][..packed.panels.len(self.lanes)];
        let lines = 0..packed.panels.lines(self.lanes);
        packed.panels.pack(self.lanes, lines, into, |c, m| {
            if c < channels { at(c, m) } else { 0.0 }
        });
    }

    /// Packs a weight of maps x channels x 3 x 3, transformed.
    fn transform(&mut self, packed: Packed, channels: usize, weight: &[f32]) {
        let maps = packed.panels.columns;
        let mut places = vec![0.0; PLACES * channels * maps];
        for (index, kernel) in weight.as_chunks::<9>().0.iter().enumerate() {
            for (place, value) in of_kernel(kernel).into_iter().enumerate() {
                places[place * channels * maps + index] = value;
            }
        }
        for (place, weight) in places.chunks_exact(channels * maps).enumerate() {
            let at = packed.at + place * packed.panels.len(self.lanes);
            let packed = Packed { at, ..packed };
            self.pack(packed, channels, |c, m| weight[m * channels + c]);
        }
    }
}

/// Fills the arena of weights with those of the program's stages. `parameters` and `running` have the
/// lengths that the plan gives.
pub(super) fn fold(
    plan: &Plan,
    program: &FrozenProgram,
    lanes: usize,
    (parameters, running): (&[f32], &[f32]),
    values: &mut [f32],
) {
    let source = Source {
        parameters,
        running,
    };
    let mut target = Writer { values, lanes };
    let tensors = plan.tensors();
    let stem = plan.stem();
    let weight = source.weight(tensors.stem.conv.weight);
    let norm = match &tensors.stem.norm {
        Some(norm) => source.norm(norm),
        None => Affine {
            scale: vec![1.0; stem.maps],
            shift: vec![0.0; stem.maps],
        },
    };
    let (channels, area) = (stem.channels, stem.kernel() * stem.kernel());
    // The order of the packed weight's rows: kernel row, kernel column, channel.
    target.pack(program.stem, channels * area, |k, m| {
        norm.scale[m] * weight[(m * channels + k % channels) * area + k / channels]
    });
    target.vector(program.stem_bias, &norm.shift);
    for (index, (layers, step)) in tensors.blocks.iter().zip(&program.blocks).enumerate() {
        for (layer, step) in layers.iter().zip(&step.layers) {
            target.norm(step.norm, &source.norm(&layer.norm1));
            if let (Some((conv, norm)), Some(compress)) = (&layer.narrow, step.compress) {
                let (weight, norm) = (source.weight(conv.weight), source.norm(norm));
                target.pack(compress.weight, conv.channels, |c, m| {
                    norm.scale[m] * weight[m * conv.channels + c]
                });
                target.vector(compress.bias, &norm.shift);
            }
            let weight = source.weight(layer.conv.weight);
            target.transform(step.spatial, layer.conv.channels, weight);
        }
        let transition = tensors.transitions.get(index);
        if let (Some(transition), Some(step)) = (transition, program.transitions.get(index)) {
            let channels = transition.conv.channels;
            target.norm(step.norm, &source.norm(&transition.norm));
            let weight = source.weight(transition.conv.weight);
            target.pack(step.weight, channels, |c, m| weight[m * channels + c]);
        }
    }
    let head = &tensors.head;
    if let Some(step) = program.features {
        target.norm(step.norm, &source.norm(&head.norm));
    }
    if let Some(step) = program.classifier {
        let channels = head.norm.channels();
        let weight = source.weight(head.weight);
        target.pack(step.weight, channels, |c, m| weight[m * channels + c]);
        target.vector(step.bias, source.weight(head.bias));
        if program.outputs.wanted.class_maps > 0 {
            target.vector(step.rows, weight);
        }
    }
}

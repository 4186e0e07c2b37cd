//! Folds BN into what stands in front of it, and packs the weights.

use super::program::{Norm, Packed, Program};
use crate::cpu::engine::padded;
use crate::cpu::kernel::winograd::{PLACES, of_kernel};
use crate::nn::EPSILON;
use crate::plan::{Plan, StemKind};

/// A network's numbers, taken off the front.
struct Source<'a> {
    parameters: &'a [f32],
    running: &'a [f32],
}

fn take<'a>(from: &mut &'a [f32], len: usize) -> &'a [f32] {
    let (head, tail) = from.split_at(len);
    *from = tail;
    head
}

/// BN as a multiply-add.
struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl<'a> Source<'a> {
    fn weight(&mut self, len: usize) -> &'a [f32] {
        take(&mut self.parameters, len)
    }

    fn norm(&mut self, channels: usize) -> Affine {
        let gamma = take(&mut self.parameters, channels);
        let beta = take(&mut self.parameters, channels);
        let mean = take(&mut self.running, channels);
        let variance = take(&mut self.running, channels);
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

/// Where the numbers go.
struct Target<'a> {
    values: &'a mut [f32],
    lanes: usize,
}

impl Target<'_> {
    fn vector(&mut self, at: usize, values: &[f32]) {
        self.values[at..][..values.len()].copy_from_slice(values);
    }

    fn norm(&mut self, norm: Norm, affine: &Affine) {
        self.vector(norm.at, &affine.scale);
        self.vector(norm.at + padded(norm.channels), &affine.shift);
    }

    /// A weight of maps x channels.
    fn pack(&mut self, packed: Packed, channels: usize, at: impl Fn(usize, usize) -> f32) {
        let into = &mut self.values[packed.at..][..packed.panels.len(self.lanes)];
        let lines = 0..packed.panels.lines(self.lanes);
        packed.panels.pack(self.lanes, lines, into, |c, m| {
            if c < channels { at(c, m) } else { 0.0 }
        });
    }

    /// A weight of maps x channels x 3 x 3, transformed.
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

/// Fills the arena of weights; `parameters` and `running` are as long as the plan says.
pub(super) fn fold(
    plan: &Plan,
    program: &Program,
    lanes: usize,
    (parameters, running): (&[f32], &[f32]),
    values: &mut [f32],
) {
    let mut source = Source {
        parameters,
        running,
    };
    let mut target = Target { values, lanes };
    let stem = plan.stem();
    let weight = source.weight(stem.weight_len());
    let norm = match stem.kind {
        StemKind::ImageNet => source.norm(stem.maps),
        StemKind::Cifar => Affine {
            scale: vec![1.0; stem.maps],
            shift: vec![0.0; stem.maps],
        },
    };
    let (channels, area) = (stem.channels, stem.kernel() * stem.kernel());
    // Rows of the packed weight: kernel row, kernel column, channel.
    target.pack(program.stem, channels * area, |k, m| {
        norm.scale[m] * weight[(m * channels + k % channels) * area + k / channels]
    });
    target.vector(program.stem_bias, &norm.shift);
    for (index, (block, step)) in plan.blocks().iter().zip(&program.blocks).enumerate() {
        for (layer, step) in block.iter().zip(&step.layers) {
            target.norm(step.norm, &source.norm(layer.input));
            let mut inner = layer.input;
            if let (Some(maps), Some(compress)) = (layer.bottleneck, step.compress) {
                let weight = source.weight(maps * layer.input);
                let norm = source.norm(maps);
                target.pack(compress.weight, layer.input, |c, m| {
                    norm.scale[m] * weight[m * layer.input + c]
                });
                target.vector(compress.bias, &norm.shift);
                inner = maps;
            }
            target.transform(step.spatial, inner, source.weight(9 * inner * layer.growth));
        }
        let transition = plan.transitions().get(index);
        if let (Some(transition), Some(step)) = (transition, program.transitions.get(index)) {
            let channels = transition.input;
            target.norm(step.norm, &source.norm(channels));
            let weight = source.weight(channels * transition.output);
            target.pack(step.weight, channels, |c, m| weight[m * channels + c]);
        }
    }
    let channels = plan.features();
    target.norm(program.norm, &source.norm(channels));
    let weight = source.weight(channels * plan.classes());
    target.pack(program.classifier, channels, |c, m| {
        weight[m * channels + c]
    });
    target.vector(program.classifier_bias, source.weight(plan.classes()));
}

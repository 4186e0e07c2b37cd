//! A dense block.

use densenet_runtime::plan;
use densenet_runtime::weights::State;

use super::maps::{Maps, Product};
use super::norm::{Norm, Statistics, undo};
use super::rounded;

/// The positions of a layer's parameters.
pub struct Layer {
    pub norm1: Norm,
    /// The 1x1 convolution and the BN after it.
    pub narrow: Option<(usize, Norm)>,
    pub conv: usize,
}

/// A block, and the state of its latest pass.
pub struct Block {
    plan: plan::Block,
    layers: Vec<Layer>,
    /// Bottleneck maps of each layer.
    narrow: Vec<Maps>,
    /// The gradient of all maps after their BN, as it is stored; its two sums for each channel.
    gradient: Maps,
    pub accumulate: fn(f32) -> f32,
    sums: Vec<[f64; 2]>,
}

impl Block {
    pub fn new(plan: plan::Block, layers: Vec<Layer>, accumulate: fn(f32) -> f32) -> Self {
        Self {
            plan,
            layers,
            narrow: Vec::new(),
            gradient: Maps::default(),
            accumulate,
            sums: Vec::new(),
        }
    }

    /// All maps of the block.
    pub fn forward(
        &mut self,
        input: Maps,
        state: &mut State,
        round: fn(f32) -> f32,
        training: bool,
    ) -> Maps {
        let mut maps = Maps::zeros(input.size(), self.plan.output());
        maps.set(0, &input);
        self.narrow.clear();
        for layer in &mut self.layers {
            let prefix = maps.columns(0, layer.norm1.channels);
            layer.norm1.prepare(&prefix, state, training);
            let mut operand = prefix.normalised(&layer.norm1).rounded(round);
            if let Some((weight, norm2)) = &mut layer.narrow {
                let values = rounded(
                    &state.parameters[*weight..][..norm2.channels * prefix.channels],
                    round,
                );
                let narrow = Product::pointwise(norm2.channels)
                    .forward(&operand, &values)
                    .rounded(round);
                norm2.prepare(&narrow, state, training);
                operand = narrow.normalised(norm2).rounded(round);
                self.narrow.push(narrow);
            }
            let growth = self.plan.growth;
            let weight = rounded(
                &state.parameters[layer.conv..][..growth * operand.channels * 9],
                round,
            );
            let fresh = Product::spatial(growth)
                .forward(&operand, &weight)
                .rounded(round);
            maps.set(layer.norm1.channels, &fresh);
        }
        maps
    }

    /// The gradient of nothing yet.
    pub fn start(&mut self, maps: &Maps) {
        self.gradient = Maps::zeros(maps.size(), maps.channels);
        self.sums = vec![[0.0; 2]; maps.channels];
    }

    /// Adds the gradient of a consumer of the first channels: `d` is the gradient of its ReLU's result.
    pub fn consume(
        &mut self,
        norm: &Norm,
        maps: &Maps,
        d: &[f32],
        state: &State,
        gradients: &mut [f32],
    ) {
        let prefix = maps.columns(0, norm.channels);
        let (masked, sums) = norm.mask(&prefix, d, gradients);
        for (i, masked) in masked.into_iter().enumerate() {
            let c = i % norm.channels;
            let at = &mut self.gradient.values[i / norm.channels * maps.channels + c];
            *at = (self.accumulate)(state.parameters[norm.gamma + c].mul_add(masked, *at));
        }
        for (c, sums) in sums.into_iter().enumerate() {
            let gamma = f64::from(state.parameters[norm.gamma + c]);
            self.sums[c][0] += gamma * sums[0];
            self.sums[c][1] += gamma * sums[1];
        }
    }

    /// The gradient of some channels, whose consumers are all done.
    fn finish(&self, maps: &Maps, first: usize, count: usize, round: fn(f32) -> f32) -> Maps {
        let x = maps.columns(first, count);
        let statistics = Statistics::of(&x);
        let mut g = self.gradient.columns(first, count);
        for (i, (g, &x)) in g.values.iter_mut().zip(&x.values).enumerate() {
            let c = i % count;
            *g = round(undo(
                &statistics,
                c,
                1.0,
                *g,
                x,
                self.sums[first + c],
                maps.pixels(),
            ));
        }
        g
    }

    /// From the gradient that the consumers after the block left to that of its input.
    pub fn backward(
        &mut self,
        maps: &Maps,
        state: &State,
        gradients: &mut [f32],
        round: fn(f32) -> f32,
    ) -> Maps {
        let growth = self.plan.growth;
        for number in (0..self.layers.len()).rev() {
            let layer = &self.layers[number];
            let norm1 = layer.norm1.clone();
            let fresh = self.finish(maps, norm1.channels, growth, round);
            let wide = maps
                .columns(0, norm1.channels)
                .normalised(&norm1)
                .rounded(round);
            let spatial = Product::spatial(growth);
            let d = if let Some((weight, norm2)) = &layer.narrow {
                let y = &self.narrow[number];
                let operand = y.normalised(norm2).rounded(round);
                let range = layer.conv..layer.conv + growth * y.channels * 9;
                spatial.add_weight(&fresh, &operand, &mut gradients[range.clone()]);
                let d = spatial.backward(&fresh, &rounded(&state.parameters[range], round), y);
                let (masked, sums) = norm2.mask(y, &d.values, gradients);
                let mut dy = Maps {
                    values: masked,
                    ..*y
                }
                .rounded(round);
                for (i, (dy, &y)) in dy.values.iter_mut().zip(&y.values).enumerate() {
                    let c = i % norm2.channels;
                    let gamma = state.parameters[norm2.gamma + c];
                    let sums = sums[c].map(|sum| sum * f64::from(gamma));
                    *dy = round(undo(
                        &norm2.statistics,
                        c,
                        gamma,
                        *dy,
                        y,
                        sums,
                        maps.pixels(),
                    ));
                }
                let range = *weight..*weight + norm2.channels * norm1.channels;
                let pointwise = Product::pointwise(norm2.channels);
                pointwise.add_weight(&dy, &wide, &mut gradients[range.clone()]);
                pointwise.backward(&dy, &rounded(&state.parameters[range], round), &wide)
            } else {
                let range = layer.conv..layer.conv + growth * norm1.channels * 9;
                spatial.add_weight(&fresh, &wide, &mut gradients[range.clone()]);
                spatial.backward(&fresh, &rounded(&state.parameters[range], round), &wide)
            };
            self.consume(&norm1, maps, &d.values, state, gradients);
        }
        self.finish(maps, 0, self.plan.input, round)
    }
}

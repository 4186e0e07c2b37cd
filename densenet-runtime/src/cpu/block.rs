//! A dense block: one buffer that its layers append to.
//!
//! Forward, a layer reads a prefix of the buffer's channels with BN and ReLU as it loads them,
//! and writes its k maps behind them, measured as they are written. Backward, the last layer
//! first: the BN that all consumers of a channel share is undone once, when its producer's turn
//! comes (`Gradient::finish`). Each consumer's part in it is linear in gamma times the masked
//! gradient, so the two sums that undoing needs are sums of what each consumer's gradients of
//! gamma and beta were, and cost no pass of their own.

use std::ops::Range;

use super::dropout::Dropout;
use super::engine::{Engine, padded, split_rows};
use super::load::NormRelu;
use super::normal::{
    Affine, GradientSums, Moments, Norm, NormWeights, Statistics, Sums, Undo, update_running,
};
use super::pointwise::{self, Input, Target};
use super::simd::{Kernel, Simd};
use super::spatial::{self, Sink, Size};
use crate::plan::{Block, Layer};

/// How BN normalises.
pub(crate) enum Norms<'a> {
    /// With the batch's statistics, which move these running statistics.
    Batch(&'a mut [f32]),
    /// With these running statistics.
    Running(&'a [f32]),
}

/// What a block remembers of a training step besides its feature maps.
pub(crate) struct BlockState {
    /// Of the feature maps.
    pub maps: Statistics,
    /// Of each layer's bottleneck maps.
    bottlenecks: Vec<Statistics>,
    /// Of the gradient of the feature maps.
    pub gradient: GradientSums,
}

impl BlockState {
    pub fn new(block: &Block) -> Self {
        let bottleneck = |layer: Layer| Statistics::new(layer.bottleneck.unwrap_or(0));
        Self {
            maps: Statistics::new(block.output()),
            bottlenecks: block.iter().map(bottleneck).collect(),
            gradient: GradientSums::new(block.output()),
        }
    }
}

/// Outputs of a block's 1x1 convolutions.
pub(crate) enum Bottlenecks<'a> {
    /// Of each layer.
    Kept(&'a mut [f32]),
    /// Of one layer, to be computed again on the way back.
    Recomputed(&'a mut [f32]),
}

impl Bottlenecks<'_> {
    /// The `len` values of a layer.
    fn layer(&mut self, index: usize, len: usize) -> &mut [f32] {
        match self {
            Self::Kept(all) => &mut all[index * len..][..len],
            Self::Recomputed(one) => &mut one[..len],
        }
    }
}

/// The buffers of a block.
pub(crate) struct BlockBuffers<'a> {
    /// Pixels x all channels; the block's input in the first.
    pub x: &'a mut [f32],
    /// Outputs of the 1x1 convolutions.
    pub bottleneck: Bottlenecks<'a>,
    /// Pixels x k: the new maps of a plain layer, which reads the buffer that they belong in.
    pub fresh: &'a mut [f32],
}

/// A layer's trainable parameters, or their gradients.
macro_rules! split_layer {
    ($name:ident, $values:ty, $split:ident) => {
        struct $name<'a> {
            scale1: $values,
            bias1: $values,
            conv1: $values,
            scale2: $values,
            bias2: $values,
            conv2: $values,
            marker: std::marker::PhantomData<&'a ()>,
        }

        impl<'a> $name<'a> {
            /// Takes the layer's off the front of `rest`; the parts of a bottleneck are empty
            /// in a plain layer.
            fn take(rest: &mut $values, layer: Layer) -> Self {
                let maps = layer.bottleneck.unwrap_or(0);
                let conv2 = 9 * layer.growth * layer.bottleneck.unwrap_or(layer.input);
                let mut take = |len| {
                    let (head, tail) = std::mem::take(rest).$split(len);
                    *rest = tail;
                    head
                };
                Self {
                    scale1: take(layer.input),
                    bias1: take(layer.input),
                    conv1: take(maps * layer.input),
                    scale2: take(maps),
                    bias2: take(maps),
                    conv2: take(conv2),
                    marker: std::marker::PhantomData,
                }
            }
        }
    };
}
split_layer!(Weights, &'a [f32], split_at);
split_layer!(Gradients, &'a mut [f32], split_at_mut);

impl<'a> Weights<'a> {
    fn norm1(&self) -> NormWeights<'a> {
        NormWeights {
            scale: self.scale1,
            bias: self.bias1,
        }
    }

    fn norm2(&self) -> NormWeights<'a> {
        NormWeights {
            scale: self.scale2,
            bias: self.bias2,
        }
    }
}

/// Sets the BN of a consumer, from the batch's statistics or the running ones.
pub(crate) fn set_affine(
    affine: &mut Affine,
    norm: &NormWeights<'_>,
    statistics: &Statistics,
    norms: &mut Norms<'_>,
    at: usize,
    pixels: usize,
) -> usize {
    let channels = norm.scale.len();
    let end = at + 2 * channels;
    match norms {
        Norms::Batch(running) => {
            affine.set(
                norm,
                &statistics.mean[..channels],
                &statistics.inverse[..channels],
            );
            update_running(
                &mut running[at..end],
                &statistics.mean[..channels],
                &statistics.variance[..channels],
                pixels,
            );
        }
        Norms::Running(running) => affine.set_running(norm, &running[at..end]),
    }
    end
}

/// A block's dropout: two sites for each layer.
#[derive(Clone, Copy)]
pub(crate) struct Sites {
    pub probability: f64,
    pub seed: u64,
    /// The block's first site.
    pub first: usize,
}

impl Sites {
    fn bottleneck(self, layer: usize) -> Option<Dropout> {
        Dropout::new(self.probability, self.seed, self.first + 2 * layer)
    }

    fn maps(self, layer: usize) -> Option<Dropout> {
        Dropout::new(self.probability, self.seed, self.first + 2 * layer + 1)
    }
}

/// Runs the layers of a block. The first channels of `buffers.x` are filled; with a batch's
/// statistics, `state` holds theirs.
pub(crate) fn forward(
    engine: &mut Engine,
    block: &Block,
    batch: usize,
    parameters: &[f32],
    mut norms: Norms<'_>,
    state: &mut BlockState,
    mut buffers: BlockBuffers<'_>,
    sites: Sites,
) {
    let pixels = batch * block.pixels();
    let training = matches!(norms, Norms::Batch(_));
    let mut rest = parameters;
    let mut at = 0;
    for (index, layer) in block.iter().enumerate() {
        let weights = Weights::take(&mut rest, layer);
        let mut affine = std::mem::take(&mut engine.affine);
        at = set_affine(
            &mut affine[0],
            &weights.norm1(),
            &state.maps,
            &mut norms,
            at,
            pixels,
        );
        let size = Size {
            height: block.height,
            width: block.width,
        };
        match layer.bottleneck {
            Some(maps) => {
                let y = buffers.bottleneck.layer(index, pixels * maps);
                let source = NormRelu {
                    x: buffers.x,
                    stride: block.output(),
                    affine: &affine[0],
                };
                let dropout = if training {
                    sites.bottleneck(index)
                } else {
                    None
                };
                compress(engine, source, layer.input, &weights, y, dropout, training);
                if training {
                    state.bottlenecks[index].merge(0, moments(engine));
                }
                let statistics = &state.bottlenecks[index];
                at = set_affine(
                    &mut affine[1],
                    &weights.norm2(),
                    statistics,
                    &mut norms,
                    at,
                    pixels,
                );
                spatial::pack_forward(engine, weights.conv2, layer.growth, maps);
                let source = NormRelu {
                    x: y,
                    stride: maps,
                    affine: &affine[1],
                };
                let target = Target {
                    values: buffers.x,
                    stride: block.output(),
                    column: layer.input,
                };
                let dropout = if training { sites.maps(index) } else { None };
                let growth = layer.growth;
                spatial::forward(
                    engine, source, maps, size, batch, growth, target, dropout, training,
                );
            }
            None => {
                spatial::pack_forward(engine, weights.conv2, layer.growth, layer.input);
                let source = NormRelu {
                    x: buffers.x,
                    stride: block.output(),
                    affine: &affine[0],
                };
                let fresh = &mut buffers.fresh[..pixels * layer.growth];
                let target = Target {
                    values: fresh,
                    stride: layer.growth,
                    column: 0,
                };
                let dropout = if training { sites.maps(index) } else { None };
                let (input, growth) = (layer.input, layer.growth);
                spatial::forward(
                    engine, source, input, size, batch, growth, target, dropout, training,
                );
                let rows = buffers.x.chunks_exact_mut(block.output());
                for (row, new) in rows.zip(buffers.fresh.chunks_exact(growth)) {
                    row[input..input + growth].copy_from_slice(new);
                }
            }
        }
        if training {
            state.maps.merge(layer.input, moments(engine));
        }
        engine.affine = affine;
    }
}

/// What the engine's threads have measured.
pub(crate) fn moments(engine: &Engine) -> impl Iterator<Item = &Moments> + Clone {
    engine.scratch.iter().map(|scratch| &scratch.moments)
}

/// The engine's threads' sums for gamma and beta.
pub(crate) fn sums(engine: &Engine) -> impl Iterator<Item = &Sums> + Clone {
    engine.scratch.iter().map(|scratch| &scratch.sums)
}

/// The 1x1 convolution of a layer.
fn compress(
    engine: &mut Engine,
    source: NormRelu<'_>,
    channels: usize,
    weights: &Weights<'_>,
    y: &mut [f32],
    dropout: Option<Dropout>,
    measure: bool,
) {
    let maps = weights.scale2.len();
    let pixels = y.len() / maps;
    let target = Target {
        values: y,
        stride: maps,
        column: 0,
    };
    pointwise::convolve(
        engine,
        &source,
        pixels,
        channels,
        weights.conv1,
        target,
        dropout,
        measure,
    );
}

/// The gradient buffers of a block.
pub(crate) struct BlockGradients<'a> {
    /// Gradient of the feature maps behind their normalisation: pixels x all channels.
    pub g: &'a mut [f32],
    /// Gradient of one layer's bottleneck maps: pixels x maps.
    pub bottleneck: &'a mut [f32],
    /// Gradient of one layer's new maps: pixels x k.
    pub fresh: &'a mut [f32],
    /// Gradient of the feature maps as they are, from consumers that do not normalise them:
    /// pixels x all channels.
    pub raw: Option<&'a [f32]>,
}

/// Goes back through the layers of a block, last to first.
///
/// `gradients.g` and `state.gradient` hold what the block's last consumer left. Adds to
/// `gradient`, the gradient of the parameters. What is left for the block's input is in the
/// first channels of `g`, to be finished by [`finish`].
pub(crate) fn backward(
    engine: &mut Engine,
    block: &Block,
    batch: usize,
    parameters: &[f32],
    gradient: &mut [f32],
    state: &mut BlockState,
    x: &[f32],
    mut bottlenecks: Bottlenecks<'_>,
    buffers: BlockGradients<'_>,
    sites: Sites,
) {
    let pixels = batch * block.pixels();
    let stride = block.output();
    let size = Size {
        height: block.height,
        width: block.width,
    };
    let BlockGradients {
        g,
        bottleneck: dy,
        fresh,
        raw,
    } = buffers;
    let mut layers: Vec<_> = {
        let (mut weights, mut gradients) = (parameters, gradient);
        block
            .iter()
            .map(|layer| {
                (
                    Weights::take(&mut weights, layer),
                    Gradients::take(&mut gradients, layer),
                )
            })
            .collect()
    };
    for (index, layer) in block.iter().enumerate().rev() {
        let (weights, gradients) = &mut layers[index];
        let channels = layer.input;
        let dout = &mut fresh[..pixels * layer.growth];
        let columns = channels..channels + layer.growth;
        let maps = (&state.maps, &state.gradient);
        finish(
            engine,
            (g, x, stride),
            columns,
            maps,
            raw,
            dout,
            sites.maps(index),
        );
        let mut affine = std::mem::take(&mut engine.affine);
        let [affine1, affine2] = &mut affine;
        affine1.set(
            &weights.norm1(),
            &state.maps.mean[..channels],
            &state.maps.inverse,
        );
        let norm1 = Norm {
            affine: affine1,
            gamma: weights.scale1,
            mean: &state.maps.mean,
            inverse: &state.maps.inverse,
        };
        match layer.bottleneck {
            Some(maps) => {
                let recomputed = matches!(bottlenecks, Bottlenecks::Recomputed(_));
                let y = bottlenecks.layer(index, pixels * maps);
                if recomputed {
                    let source = NormRelu {
                        x,
                        stride,
                        affine: affine1,
                    };
                    let dropout = sites.bottleneck(index);
                    compress(engine, source, channels, weights, y, dropout, false);
                }
                let statistics = &state.bottlenecks[index];
                affine2.set(&weights.norm2(), &statistics.mean, &statistics.inverse);
                let norm2 = Norm {
                    affine: affine2,
                    gamma: weights.scale2,
                    mean: &statistics.mean,
                    inverse: &statistics.inverse,
                };
                let dy = &mut dy[..pixels * maps];
                spatial::pack_backward(engine, weights.conv2, layer.growth, maps);
                let sink = Sink::Store(dy);
                let growth = layer.growth;
                spatial::backward(engine, (y, maps), maps, norm2, size, dout, growth, sink);
                spatial::add_weight(engine, gradients.conv2, growth, maps);
                let mut sums2 = GradientSums::new(maps);
                sums2.start(
                    sums(engine),
                    weights.scale2,
                    (&mut *gradients.scale2, &mut *gradients.bias2),
                );
                let norm = (statistics, weights.scale2);
                undo_norm(engine, dy, y, norm, &sums2, sites.bottleneck(index));
                pointwise::pack_backward(engine, weights.conv1, maps, channels);
                let input = Input {
                    x,
                    stride,
                    channels,
                    norm: norm1,
                };
                pointwise::backward(engine, input, dy, maps, g);
                engine.add_weight(gradients.conv1, channels, padded(channels));
            }
            None => {
                spatial::pack_backward(engine, weights.conv2, layer.growth, channels);
                let sink = Sink::Add(g, stride);
                let growth = layer.growth;
                spatial::backward(
                    engine,
                    (x, stride),
                    channels,
                    norm1,
                    size,
                    dout,
                    growth,
                    sink,
                );
                spatial::add_weight(engine, gradients.conv2, growth, channels);
            }
        }
        let totals = &mut state.gradient;
        let gamma = weights.scale1;
        let into = (&mut *gradients.scale1, &mut *gradients.bias1);
        Sums::merge(sums(engine), into, |c, dscale, dbias| {
            totals.plain[c] += gamma[c] * dbias;
            totals.normalised[c] += gamma[c] * dscale;
        });
        engine.affine = affine;
    }
}

/// Undoes the normalisation of some channels, whose consumers are all done: writes their
/// gradient into `into` (pixels x columns), plus the `raw` gradient of consumers that do not
/// normalise if there are any, with dropout's mask if the maps had one.
pub(crate) fn finish(
    engine: &mut Engine,
    (g, x, stride): (&[f32], &[f32], usize),
    columns: Range<usize>,
    (statistics, sums): (&Statistics, &GradientSums),
    raw: Option<&[f32]>,
    into: &mut [f32],
    dropout: Option<Dropout>,
) {
    let count = columns.len();
    let pixels = into.len() / count;
    let shares = engine.shares(pixels);
    let level = engine.level;
    let undo = Undo::new(statistics, columns.clone(), None, sums, pixels);
    let mut parts: Vec<_> = shares
        .iter()
        .cloned()
        .zip(split_rows(into, count, &shares))
        .collect();
    engine.team.each(&mut parts, |_, (pixels, into)| {
        level.run(Finish {
            undo: &undo,
            source: (g, x, stride),
            raw,
            columns: columns.clone(),
            first: pixels.start,
            into,
            dropout,
        });
    });
}

/// One thread's share of [`finish`].
struct Finish<'a> {
    undo: &'a Undo,
    source: (&'a [f32], &'a [f32], usize),
    raw: Option<&'a [f32]>,
    columns: Range<usize>,
    first: usize,
    into: &'a mut [f32],
    dropout: Option<Dropout>,
}

impl Kernel for Finish<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            undo,
            source: (g, x, stride),
            raw,
            columns,
            first,
            into,
            dropout,
        } = self;
        let count = columns.len();
        for (row, into) in into.chunks_exact_mut(count).enumerate() {
            let p = first + row;
            let (g, x) = (
                &g[p * stride..][columns.clone()],
                &x[p * stride..][columns.clone()],
            );
            undo.pixel(simd, g, x, into);
            if let Some(raw) = raw {
                let raw = &raw[p * stride..][columns.clone()];
                into.iter_mut()
                    .zip(raw)
                    .for_each(|(into, raw)| *into += raw);
            }
            if let Some(dropout) = dropout {
                dropout.apply(p * count, into);
            }
        }
    }
}

/// Turns the masked gradient of bottleneck maps, in place, into the gradient of the 1x1
/// convolution's output.
fn undo_norm(
    engine: &mut Engine,
    dy: &mut [f32],
    y: &[f32],
    (statistics, gamma): (&Statistics, &[f32]),
    sums: &GradientSums,
    dropout: Option<Dropout>,
) {
    let maps = gamma.len();
    let shares = engine.shares(dy.len() / maps);
    let level = engine.level;
    let pixels = dy.len() / maps;
    let undo = Undo::new(statistics, 0..maps, Some(gamma), sums, pixels);
    let mut parts: Vec<_> = shares
        .iter()
        .cloned()
        .zip(split_rows(dy, maps, &shares))
        .collect();
    engine.team.each(&mut parts, |_, (pixels, dy)| {
        level.run(UndoNorm {
            undo: &undo,
            maps,
            y,
            first: pixels.start,
            dy,
            dropout,
        });
    });
}

/// One thread's share of [`undo_norm`].
struct UndoNorm<'a> {
    undo: &'a Undo,
    maps: usize,
    y: &'a [f32],
    first: usize,
    dy: &'a mut [f32],
    dropout: Option<Dropout>,
}

impl Kernel for UndoNorm<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            undo,
            maps,
            y,
            first,
            dy,
            dropout,
        } = self;
        let rows = dy
            .chunks_exact_mut(maps)
            .zip(y[first * maps..].chunks_exact(maps));
        for (row, (dy, y)) in rows.enumerate() {
            undo.pixel_in_place(simd, dy, y);
            if let Some(dropout) = dropout {
                dropout.apply((first + row) * maps, dy);
            }
        }
    }
}

//! The layers of a block, last to first.

use super::forward::spatial_shape;
use super::layer::{LayerGradients, Weights};
use super::{BlockState, Bottlenecks, LayerNorms, Sites};
use crate::conv::finish::{Narrow, Source, finish, undo_norm};
use crate::conv::pointwise::{self, Destination, Input, OutputColumns};
use crate::conv::spatial::{self, Sink};
use crate::engine::{Engine, padded};
use crate::kernel::load::NormRelu;
use crate::kernel::normal::{Norm, Sums};
use crate::stage::Backward;
use densenet_plan::{Block, LayerTensors};

/// The buffers of a block in the backward pass.
pub struct BlockGradients<'a> {
    /// The feature maps: rows of `stride`.
    pub x: &'a [f32],
    /// Elements from a pixel's feature maps to the next pixel's.
    pub stride: usize,
    /// Outputs of the 1x1 convolutions.
    pub bottlenecks: Bottlenecks<'a>,
    /// The gradient of the feature maps after their normalisation, as the block's last consumer
    /// wrote it: rows of `stride`.
    pub g: &'a mut [f32],
    /// The gradient of the feature maps themselves, from consumers that do not normalise them: rows
    /// of `stride`.
    pub raw: Option<&'a [f32]>,
    /// Memory for the gradient of one layer's bottleneck maps: pixels x maps.
    pub bottleneck: &'a mut [f32],
    /// Memory for the gradient of one layer's new maps: pixels x k.
    pub fresh: &'a mut [f32],
    /// Where the gradient of the block's input is written: pixels x channels; empty if it is not
    /// wanted.
    pub input: &'a mut [f32],
}

/// Goes back through the layers of a block, last to first, to the gradient of its input.
///
/// `buffers.g` and `state.gradient` hold what the block's last consumer left.
pub fn backward(
    engine: &mut Engine,
    (block, tensors): (&Block, &[LayerTensors]),
    pass: &mut Backward<'_>,
    state: &mut BlockState,
    buffers: BlockGradients<'_>,
    sites: Sites,
) {
    let pixels = pass.batch * block.pixels();
    let BlockGradients {
        x,
        stride,
        mut bottlenecks,
        g,
        raw,
        bottleneck: dy,
        fresh,
        input: dinput,
    } = buffers;
    let BlockState {
        maps: statistics,
        bottlenecks: narrow_statistics,
        gradient: sums,
        norms,
    } = state;
    let LayerNorms {
        affine: [affine1, affine2],
        totals,
        undo,
    } = norms;
    for (index, (layer, tensors)) in block.iter().zip(tensors).enumerate().rev() {
        let weights = Weights::of(pass.parameters, tensors);
        let gradients = LayerGradients::of(&mut pass.gradients, tensors);
        let channels = layer.input;
        let growth = layer.growth;
        let shape = spatial_shape(block, layer);
        let dout = &mut fresh[..pixels * growth];
        let own = Source {
            g,
            x,
            stride,
            columns: channels..channels + growth,
            statistics,
            sums,
            raw,
            dropout: sites.maps(index),
        };
        finish(engine, undo, own, dout);
        let norm1 = Norm::of_batch(affine1, weights.norm1, statistics);
        match layer.bottleneck {
            Some(maps) => {
                let recomputed = matches!(bottlenecks, Bottlenecks::Recomputed(_));
                let y = bottlenecks.layer(index, pixels * maps);
                if recomputed {
                    let source = NormRelu {
                        x,
                        stride,
                        affine: norm1.affine,
                    };
                    let target = Destination {
                        values: &mut *y,
                        columns: OutputColumns {
                            dropout: sites.bottleneck(index),
                            ..OutputColumns::all(maps)
                        },
                    };
                    let weight = weights.conv1;
                    pointwise::convolve(engine, &source, pixels, channels, weight, target);
                }
                let own = &narrow_statistics[index];
                let norm2 = Norm::of_batch(affine2, weights.norm2, own);
                let dy = &mut dy[..pixels * maps];
                spatial::pack_backward(engine, weights.conv2, growth, maps);
                let sink = Sink::Store(dy);
                spatial::backward(engine, shape, (y, maps), norm2, dout, sink);
                spatial::add_weight(engine, gradients.conv2, growth, maps);
                let gamma = weights.norm2.scale;
                let into = (&mut *gradients.scale2, &mut *gradients.bias2);
                totals.start(engine.sums(), gamma, into);
                let narrow = Narrow {
                    y,
                    statistics: own,
                    gamma,
                    sums: totals,
                    dropout: sites.bottleneck(index),
                };
                undo_norm(engine, undo, &narrow, dy);
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
                spatial::pack_backward(engine, weights.conv2, growth, channels);
                let sink = Sink::Add(g, stride);
                spatial::backward(engine, shape, (x, stride), norm1, dout, sink);
                spatial::add_weight(engine, gradients.conv2, growth, channels);
            }
        }
        let gamma = weights.norm1.scale;
        let into = (&mut *gradients.scale1, &mut *gradients.bias1);
        Sums::merge(engine.sums(), into, |c, dscale, dbias| {
            sums.plain[c] += gamma[c] * dbias;
            sums.normalised[c] += gamma[c] * dscale;
        });
    }
    if dinput.is_empty() {
        return;
    }
    let rest = Source {
        g,
        x,
        stride,
        columns: 0..block.input,
        statistics,
        sums,
        raw,
        dropout: None,
    };
    finish(engine, undo, rest, dinput);
}

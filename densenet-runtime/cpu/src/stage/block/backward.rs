//! The layers of a block, last to first.

use super::forward::spatial_shape;
use super::{BlockState, Bottlenecks, LayerNorms, Sites};
use crate::conv::finish::{Narrow, Source, finish, undo_norm};
use crate::conv::pointwise::{self, Destination, Input, OutputColumns};
use crate::conv::spatial::{self, Sink};
use crate::engine::{Engine, padded};
use crate::kernel::load::NormRelu;
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

/// Goes back through the layers of a block, last to first, to the gradient of its input, or to the
/// first layer that trains if nothing before it does.
///
/// `buffers.g` and `state.gradient` hold what the block's last consumer left.
pub fn backward(
    engine: &mut Engine,
    (block, tensors): (&Block, &[LayerTensors]),
    pass: &mut Backward<'_>,
    state: &mut BlockState,
    buffers: BlockGradients<'_>,
    sites: Sites<'_>,
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
        if pass.is_done(tensors.conv.weight.range().end) {
            return;
        }
        let conv2 = tensors.conv.weight.of(pass.parameters);
        let weight_trains = !pass.frozen.has(tensors.conv.weight);
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
            dropout: sites.maps(index, &tensors.conv),
        };
        finish(engine, undo, own, dout);
        let norm1 = pass.norm(affine1, &tensors.norm1, statistics);
        match &tensors.narrow {
            Some((narrow_conv, norm2)) => {
                let maps = narrow_conv.maps;
                let conv1 = narrow_conv.weight.of(pass.parameters);
                let narrow_dropout = sites.bottleneck(index, narrow_conv);
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
                            dropout: narrow_dropout,
                            ..OutputColumns::all(maps)
                        },
                    };
                    pointwise::convolve(engine, &source, pixels, channels, conv1, target);
                }
                let own = &narrow_statistics[index];
                let norm = pass.norm(affine2, norm2, own);
                let dy = &mut dy[..pixels * maps];
                spatial::pack_backward(engine, conv2, growth, maps);
                let (dout, sink) = ((&*dout, weight_trains), Sink::Store(dy));
                spatial::backward(engine, shape, (y, maps), norm, dout, sink);
                if weight_trains {
                    let gradient = pass.gradients.range(tensors.conv.weight.range());
                    spatial::add_weight(engine, gradient, growth, maps);
                }
                pass.start(engine, norm2, totals);
                let narrow = Narrow {
                    y,
                    statistics: own,
                    gamma: norm.gamma,
                    sums: totals,
                    dropout: narrow_dropout,
                };
                undo_norm(engine, undo, &narrow, dy);
                pointwise::pack_backward(engine, conv1, maps, channels);
                let input = Input {
                    x,
                    stride,
                    channels,
                    norm: norm1,
                };
                let weight_trains = !pass.frozen.has(narrow_conv.weight);
                pointwise::backward(engine, input, (dy, maps), weight_trains, g);
                if weight_trains {
                    let gradient = pass.gradients.range(narrow_conv.weight.range());
                    engine.add_weight(gradient, channels, padded(channels));
                }
            }
            None => {
                spatial::pack_backward(engine, conv2, growth, channels);
                let (dout, sink) = ((&*dout, weight_trains), Sink::Add(g, stride));
                spatial::backward(engine, shape, (x, stride), norm1, dout, sink);
                if weight_trains {
                    let gradient = pass.gradients.range(tensors.conv.weight.range());
                    spatial::add_weight(engine, gradient, growth, channels);
                }
            }
        }
        pass.add(engine, &tensors.norm1, sums);
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

//! The layers of a block, last to first.

use super::forward::compress;
use super::layer::{Gradients, Weights};
use super::{BlockState, Bottlenecks, Sites};
use crate::cpu::conv::finish::{finish, undo_norm};
use crate::cpu::conv::pointwise::{self, Input};
use crate::cpu::conv::spatial::{self, Sink, Size};
use crate::cpu::engine::{Engine, padded};
use crate::cpu::kernel::load::NormRelu;
use crate::cpu::kernel::normal::{Norm, Sums};
use crate::plan::{Block, LayerTensors};

/// The gradient buffers of a block.
pub(crate) struct BlockGradients<'a> {
    /// Gradient of the feature maps behind their normalisation: rows of `stride`.
    pub g: &'a mut [f32],
    /// Elements from a pixel's feature maps to the next pixel's.
    pub stride: usize,
    /// Gradient of one layer's bottleneck maps: pixels x maps.
    pub bottleneck: &'a mut [f32],
    /// Gradient of one layer's new maps: pixels x k.
    pub fresh: &'a mut [f32],
    /// Gradient of the feature maps as they are, from consumers that do not normalise them:
    /// rows of `stride`.
    pub raw: Option<&'a [f32]>,
}

/// Goes back through the layers of a block, last to first.
///
/// `gradients.g` and `state.gradient` hold what the block's last consumer left. Adds to
/// `gradient`, the gradient of the parameters. What is left for the block's input is in the
/// first channels of `g`, to be finished by [`finish`].
pub(crate) fn backward(
    engine: &mut Engine,
    (block, tensors): (&Block, &[LayerTensors]),
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
    let size = Size {
        height: block.height,
        width: block.width,
    };
    let BlockGradients {
        g,
        stride,
        bottleneck: dy,
        fresh,
        raw,
    } = buffers;
    for (index, (layer, tensors)) in block.iter().zip(tensors).enumerate().rev() {
        let weights = Weights::of(parameters, tensors);
        let gradients = Gradients::of(gradient, tensors);
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
            &weights.norm1,
            &state.maps.mean[..channels],
            &state.maps.inverse,
        );
        let norm1 = Norm {
            affine: affine1,
            gamma: weights.norm1.scale,
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
                    compress(engine, source, channels, &weights, y, dropout, false);
                }
                let statistics = &state.bottlenecks[index];
                affine2.set(&weights.norm2, &statistics.mean, &statistics.inverse);
                let norm2 = Norm {
                    affine: affine2,
                    gamma: weights.norm2.scale,
                    mean: &statistics.mean,
                    inverse: &statistics.inverse,
                };
                let dy = &mut dy[..pixels * maps];
                spatial::pack_backward(engine, weights.conv2, layer.growth, maps);
                let sink = Sink::Store(dy);
                let growth = layer.growth;
                spatial::backward(engine, (y, maps), maps, norm2, size, dout, growth, sink);
                spatial::add_weight(engine, gradients.conv2, growth, maps);
                let mut totals = std::mem::take(&mut engine.totals);
                totals.start(
                    engine.sums(),
                    weights.norm2.scale,
                    (&mut *gradients.scale2, &mut *gradients.bias2),
                );
                let norm = (statistics, weights.norm2.scale);
                undo_norm(engine, dy, y, norm, &totals, sites.bottleneck(index));
                engine.totals = totals;
                pointwise::pack_backward(engine, engine.form, weights.conv1, maps, channels);
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
        let gamma = weights.norm1.scale;
        let into = (&mut *gradients.scale1, &mut *gradients.bias1);
        Sums::merge(engine.sums(), into, |c, dscale, dbias| {
            totals.plain[c] += gamma[c] * dbias;
            totals.normalised[c] += gamma[c] * dscale;
        });
        engine.affine = affine;
    }
}

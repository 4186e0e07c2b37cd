//! The layers of a block, first to last.

use super::layer::Weights;
use super::{BlockBuffers, BlockState, Sites};
use crate::cpu::conv::pointwise::{self, Target};
use crate::cpu::conv::spatial::{self, Size};
use crate::cpu::engine::Engine;
use crate::cpu::kernel::dropout::Dropout;
use crate::cpu::kernel::load::NormRelu;
use crate::cpu::kernel::normal::Norms;
use crate::plan::{Block, LayerTensors};

/// Runs the layers of a block. The first channels of `buffers.x` are filled; with a batch's
/// statistics, `state` holds theirs.
pub(crate) fn forward(
    engine: &mut Engine,
    (block, tensors): (&Block, &[LayerTensors]),
    batch: usize,
    parameters: &[f32],
    mut norms: Norms<'_>,
    state: &mut BlockState,
    mut buffers: BlockBuffers<'_>,
    sites: Sites,
) {
    let pixels = batch * block.pixels();
    let stride = buffers.stride;
    let training = matches!(norms, Norms::Batch(_));
    for (index, (layer, tensors)) in block.iter().zip(tensors).enumerate() {
        let weights = Weights::of(parameters, tensors);
        let mut affine = std::mem::take(&mut engine.affine);
        affine[0].prepare(parameters, &tensors.norm1, &state.maps, &mut norms, pixels);
        let size = Size {
            height: block.height,
            width: block.width,
        };
        match &tensors.narrow {
            Some((conv, norm2)) => {
                let maps = conv.maps;
                let y = buffers.bottleneck.layer(index, pixels * maps);
                let source = NormRelu {
                    x: buffers.x,
                    stride,
                    affine: &affine[0],
                };
                let dropout = if training {
                    sites.bottleneck(index)
                } else {
                    None
                };
                compress(engine, source, layer.input, &weights, y, dropout, training);
                if training {
                    state.bottlenecks[index].merge(0, engine.moments());
                }
                let statistics = &state.bottlenecks[index];
                affine[1].prepare(parameters, norm2, statistics, &mut norms, pixels);
                spatial::pack_forward(engine, weights.conv2, layer.growth, maps);
                let source = NormRelu {
                    x: y,
                    stride: maps,
                    affine: &affine[1],
                };
                let target = Target {
                    values: buffers.x,
                    stride,
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
                    stride,
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
                let rows = buffers.x.chunks_exact_mut(stride);
                for (row, new) in rows.zip(buffers.fresh.chunks_exact(growth)) {
                    row[input..input + growth].copy_from_slice(new);
                }
            }
        }
        if training {
            state.maps.merge(layer.input, engine.moments());
        }
        engine.affine = affine;
    }
}

/// The 1x1 convolution of a layer.
pub(super) fn compress(
    engine: &mut Engine,
    source: NormRelu<'_>,
    channels: usize,
    weights: &Weights<'_>,
    y: &mut [f32],
    dropout: Option<Dropout>,
    measure: bool,
) {
    let maps = weights.norm2.scale.len();
    let pixels = y.len() / maps;
    let target = Target {
        values: y,
        stride: maps,
        column: 0,
    };
    pointwise::convolve(
        engine,
        engine.form,
        &source,
        pixels,
        channels,
        weights.conv1,
        target,
        dropout,
        measure,
    );
}

//! The layers of a block, first to last.

use super::{BlockBuffers, BlockState, LayerNorms, Sites};
use crate::conv::pointwise::{self, Destination, OutputColumns};
use crate::conv::spatial::{self, Shape, Size};
use crate::engine::Engine;
use crate::kernel::load::NormRelu;
use crate::stage::Forward;
use densenet_plan::{Block, Layer, LayerTensors};

/// Runs the layers of a block. The first channels of `buffers.x` hold its input, and if the batch's
/// statistics are used, `state` holds theirs.
pub fn forward(
    engine: &mut Engine,
    (block, tensors): (&Block, &[LayerTensors]),
    pass: &mut Forward<'_>,
    state: &mut BlockState,
    mut buffers: BlockBuffers<'_>,
    sites: Sites<'_>,
) {
    let batch = pass.batch;
    let pixels = batch * block.pixels();
    let stride = buffers.stride;
    let measure = pass.training();
    let parameters = pass.parameters;
    let BlockState {
        maps,
        bottlenecks,
        norms: LayerNorms { affine, .. },
        ..
    } = state;
    let [affine1, affine2] = affine;
    for (index, (layer, tensors)) in block.iter().zip(tensors).enumerate() {
        let conv2 = tensors.conv.weight.of(parameters);
        pass.prepare(affine1, &tensors.norm1, maps, pixels);
        let source = NormRelu {
            x: buffers.x,
            stride,
            affine: affine1,
        };
        let shape = spatial_shape(block, layer);
        let columns = OutputColumns {
            stride,
            column: layer.input,
            dropout: sites.maps(index, &tensors.conv),
            measure,
        };
        match &tensors.narrow {
            Some((conv, norm2)) => {
                let y = buffers.bottleneck.layer(index, pixels * conv.maps);
                let narrow = OutputColumns {
                    dropout: sites.bottleneck(index, conv),
                    measure,
                    ..OutputColumns::all(conv.maps)
                };
                let target = Destination {
                    values: &mut *y,
                    columns: narrow,
                };
                let weight = conv.weight.of(parameters);
                pointwise::convolve(engine, &source, pixels, layer.input, weight, target);
                if measure {
                    bottlenecks[index].merge(0, engine.moments());
                }
                pass.prepare(affine2, norm2, &bottlenecks[index], pixels);
                spatial::pack_forward(engine, conv2, layer.growth, conv.maps);
                let source = NormRelu {
                    x: y,
                    stride: conv.maps,
                    affine: affine2,
                };
                let target = Destination {
                    values: &mut *buffers.x,
                    columns,
                };
                spatial::forward(engine, shape, batch, source, target);
            }
            None => {
                spatial::pack_forward(engine, conv2, layer.growth, layer.input);
                let fresh = &mut buffers.fresh[..pixels * layer.growth];
                let target = Destination {
                    values: fresh,
                    columns: OutputColumns {
                        stride: layer.growth,
                        column: 0,
                        ..columns
                    },
                };
                spatial::forward(engine, shape, batch, source, target);
                let (input, growth) = (layer.input, layer.growth);
                let rows = buffers.x.chunks_exact_mut(stride);
                for (row, new) in rows.zip(buffers.fresh.chunks_exact(growth)) {
                    row[input..input + growth].copy_from_slice(new);
                }
            }
        }
        if measure {
            maps.merge(layer.input, engine.moments());
        }
    }
}

/// The shapes of a layer's 3x3 convolution.
pub(super) fn spatial_shape(block: &Block, layer: Layer) -> Shape {
    Shape {
        size: Size {
            height: block.height,
            width: block.width,
        },
        channels: layer.bottleneck.unwrap_or(layer.input),
        maps: layer.growth,
    }
}

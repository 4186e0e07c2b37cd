//! A layer's parameters, and their gradients.

use crate::kernel::normal::NormWeights;
use crate::stage::Gradients;
use densenet_plan::{LayerTensors, Span};

/// A layer's trainable parameters. In a plain layer, `conv1` and `norm2` are empty.
pub(super) struct Weights<'a> {
    pub norm1: NormWeights<'a>,
    pub conv1: &'a [f32],
    pub norm2: NormWeights<'a>,
    pub conv2: &'a [f32],
}

impl<'a> Weights<'a> {
    pub fn of(parameters: &'a [f32], tensors: &LayerTensors) -> Self {
        let (conv1, norm2) = match &tensors.narrow {
            Some((conv, norm)) => (
                conv.weight.of(parameters),
                NormWeights::of(parameters, norm),
            ),
            None => (
                &[][..],
                NormWeights {
                    scale: &[],
                    bias: &[],
                },
            ),
        };
        Self {
            norm1: NormWeights::of(parameters, &tensors.norm1),
            conv1,
            norm2,
            conv2: tensors.conv.weight.of(parameters),
        }
    }
}

/// The gradients of these parameters.
pub(super) struct LayerGradients<'a> {
    pub scale1: &'a mut [f32],
    pub bias1: &'a mut [f32],
    pub conv1: &'a mut [f32],
    pub scale2: &'a mut [f32],
    pub bias2: &'a mut [f32],
    pub conv2: &'a mut [f32],
}

impl<'a> LayerGradients<'a> {
    pub fn of(gradients: &'a mut Gradients<'_>, tensors: &LayerTensors) -> Self {
        let norm1 = &tensors.norm1;
        let narrow = tensors
            .narrow
            .map(|(conv, norm)| [conv.weight, norm.scale, norm.bias]);
        // A plain layer has no such tensors.
        let [weight, scale, bias] = narrow.unwrap_or([Span::default(); 3]);
        let spans = [
            norm1.scale,
            norm1.bias,
            weight,
            scale,
            bias,
            tensors.conv.weight,
        ];
        let [scale1, bias1, conv1, scale2, bias2, conv2] = gradients.of_each(spans);
        Self {
            scale1,
            bias1,
            conv1,
            scale2,
            bias2,
            conv2,
        }
    }
}

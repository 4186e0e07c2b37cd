//! A layer's parameters among its block's.

use crate::cpu::kernel::normal::NormWeights;
use crate::plan::Layer;

/// A layer's trainable parameters, or their gradients.
macro_rules! split_layer {
    ($name:ident, $values:ty, $split:ident) => {
        pub(super) struct $name<'a> {
            pub scale1: $values,
            pub bias1: $values,
            pub conv1: $values,
            pub scale2: $values,
            pub bias2: $values,
            pub conv2: $values,
            marker: std::marker::PhantomData<&'a ()>,
        }

        impl<'a> $name<'a> {
            /// Takes the layer's off the back of `rest`.
            pub fn take_last(rest: &mut $values, layer: Layer) -> Self {
                let maps = layer.bottleneck.unwrap_or(0);
                let norms = 2 * (layer.input + maps);
                let convs =
                    maps * layer.input + 9 * layer.growth * layer.bottleneck.unwrap_or(layer.input);
                let all = std::mem::take(rest);
                let others = all.len() - norms - convs;
                let (head, mut own) = all.$split(others);
                *rest = head;
                Self::take(&mut own, layer)
            }

            /// Takes the layer's off the front of `rest`; the parts of a bottleneck are empty
            /// in a plain layer.
            pub fn take(rest: &mut $values, layer: Layer) -> Self {
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
    pub fn norm1(&self) -> NormWeights<'a> {
        NormWeights {
            scale: self.scale1,
            bias: self.bias1,
        }
    }

    pub fn norm2(&self) -> NormWeights<'a> {
        NormWeights {
            scale: self.scale2,
            bias: self.bias2,
        }
    }
}

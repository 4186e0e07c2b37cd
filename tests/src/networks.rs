//! The networks of the golden files, one of each kind, and their training in dfdx's way.

use densenet_runtime::plan::Plan;
use densenet_runtime::{Network, densenet};
use dfdx::prelude::*;

/// A network that has a golden file.
pub trait Case: Network {
    /// Name of the golden file.
    const GOLDEN: &'static str;

    /// Logits with the running statistics, of images in NCHW: batch x classes.
    fn evaluate(&self, images: &[f32]) -> Vec<f32>;

    /// A training pass that traces into `gradients`.
    fn differentiate(
        &mut self,
        images: &[f32],
        labels: &[u32],
        gradients: Gradients<f32, Cpu>,
    ) -> Pass;
}

/// What a training pass in dfdx's way makes.
pub struct Pass {
    /// Mean cross-entropy.
    pub loss: f32,
    /// Batch x classes.
    pub logits: Vec<f32>,
    /// Of all tensors.
    pub gradients: Gradients<f32, Cpu>,
}

/// Calls a generic function with each network: `each_network!(check)` makes a test of each, which
/// calls `check::<Network>()`.
#[macro_export]
macro_rules! each_network {
    ($check:ident) => {
        $crate::each_network!($check:
            plain Plain,
            bottleneck Bottleneck,
            compressed Compressed,
            bc Bc,
            imagenet_bc ImageNetBc,
            imagenet_compressed ImageNetCompressed,
            one_block OneBlock,
        );
    };
    ($check:ident: $($test:ident $network:ident,)*) => {
        $(
            #[test]
            fn $test() {
                $check::<$crate::networks::$network>();
            }
        )*
    };
}

macro_rules! networks {
    ($(
        $(#[$docs:meta])*
        $name:ident = $golden:literal
        [$channels:literal, $height:literal, $width:literal] to $classes:literal
        { $($spec:tt)* }
    )*) => {
        $(
            densenet! {
                $(#[$docs])*
                pub $name {
                    $($spec)*,
                    input: [$channels, $height, $width],
                    classes: $classes,
                }
            }

            impl Case for $name {
                const GOLDEN: &'static str = $golden;

                fn evaluate(&self, images: &[f32]) -> Vec<f32> {
                    let batch = images.len() / ($channels * $height * $width);
                    let shape = (batch, Const::<$channels>, Const::<$height>, Const::<$width>);
                    let images = Cpu::default().tensor_from_vec(images.to_vec(), shape);
                    self.forward(images).as_vec()
                }

                fn differentiate(
                    &mut self,
                    images: &[f32],
                    labels: &[u32],
                    gradients: Gradients<f32, Cpu>,
                ) -> Pass {
                    let device = Cpu::default();
                    let mut targets = vec![0.0; labels.len() * $classes];
                    for (row, &label) in targets.chunks_exact_mut($classes).zip(labels) {
                        row[label as usize] = 1.0;
                    }
                    let shape = (labels.len(), Const::<$channels>, Const::<$height>, Const::<$width>);
                    let images = device.tensor_from_vec(images.to_vec(), shape);
                    let logits = self.forward_mut(images.trace(gradients));
                    let values = logits.as_vec();
                    let shape = (labels.len(), Const::<$classes>);
                    let targets = device.tensor_from_vec(targets, shape);
                    let loss = Self::cross_entropy(logits, targets);
                    Pass {
                        loss: loss.array(),
                        logits: values,
                        gradients: loss.backward(),
                    }
                }
            }
        )*

        /// Name of the golden file and plan of each network.
        pub fn all() -> Vec<(&'static str, Plan)> {
            vec![$(($golden, <$name as Network>::PLAN)),*]
        }
    };
}

networks! {
    /// Neither bottleneck nor compression.
    Plain = "plain" [3, 12, 12] to 10 { blocks: [2, 2, 2], k: 4, stem: cifar, init: 6 }
    /// Bottleneck alone, on odd sides and two channels.
    Bottleneck = "bottleneck" [2, 15, 11] to 5 {
        blocks: [2, 3], k: 3, bottleneck: 2, stem: cifar, init: 7
    }
    /// Compression alone, with a theta that floors and k = 5 in the second block.
    Compressed = "compressed" [3, 9, 14] to 6 {
        blocks: [3, 2], k: [3, 5], theta: 0.3, stem: cifar, init: 8
    }
    /// BC with the CIFAR stem.
    Bc = "bc" [3, 13, 13] to 10 {
        blocks: [3, 2, 2], k: 4, theta: 0.5, bottleneck, stem: cifar, init: 8
    }
    /// BC with the ImageNet stem, on sides that round at every stage.
    ImageNetBc = "imagenet_bc" [3, 33, 45] to 7 {
        blocks: [2, 2, 2, 2], k: 4, theta: 0.5, bottleneck, stem: imagenet, init: 8
    }
    /// Compression with the ImageNet stem; 0.58 of 50 is 29, but 28 in floating point.
    ImageNetCompressed = "imagenet_compressed" [1, 30, 23] to 3 {
        blocks: [2, 1], k: [3, 5], theta: 0.58, stem: imagenet, init: 44
    }
    /// One block, and so no transition.
    OneBlock = "one_block" [1, 7, 5] to 2 {
        blocks: [2], k: 3, bottleneck, stem: cifar, init: 5
    }
}

//! The networks of the golden files, one of each kind, and their training in dfdx's way.

use densenet_runtime::nn::cross_entropy;
use densenet_runtime::plan::{BlockSpec, Plan, Ratio, Spec, StemKind};
use densenet_runtime::{Network, densenet};
use dfdx::prelude::*;

/// A network that has a golden file.
pub trait Case: Network {
    /// Name of the golden file.
    const GOLDEN: &'static str;

    /// Logits with the running statistics, of images in NCHW: batch x classes.
    fn evaluate(&self, images: &[f32]) -> Vec<f32> {
        self.forward(Self::images(images.to_vec()).unwrap())
            .as_vec()
    }

    /// A training pass that traces into `gradients`.
    fn differentiate(
        &mut self,
        images: &[f32],
        labels: &[u32],
        gradients: Gradients<f32, Cpu>,
    ) -> Pass {
        let images = Self::images(images.to_vec()).unwrap();
        let logits = self.forward_mut(images.trace(gradients));
        let values = logits.as_vec();
        let classes = Self::PLAN.classes();
        let mut targets = vec![0.0; values.len()];
        for (row, &label) in targets.chunks_exact_mut(classes).zip(labels) {
            row[label as usize] = 1.0;
        }
        let targets = Cpu::default().tensor_from_vec(targets, *logits.shape());
        let loss = cross_entropy(logits, targets);
        Pass {
            loss: loss.array(),
            logits: values,
            gradients: loss.backward(),
        }
    }
}

/// The results of a training pass in dfdx's way.
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
        $name:ident = $golden:literal { $($spec:tt)* }
    )*) => {
        $(
            densenet! { $(#[$docs])* pub $name { $($spec)* } }

            impl Case for $name {
                const GOLDEN: &'static str = $golden;
            }
        )*

        /// Name of the golden file and plan of each network.
        pub fn all() -> Vec<(&'static str, Plan)> {
            vec![$(($golden, $name::PLAN)),*]
        }
    };
}

networks! {
    /// Neither bottleneck nor compression.
    Plain = "plain" {
        blocks: [2, 2, 2], k: 4, stem: cifar, init: 6, input: [3, 12, 12], classes: 10
    }
    /// Bottleneck alone, on odd sides and two channels.
    Bottleneck = "bottleneck" {
        blocks: [2, 3], k: 3, bottleneck: 2, stem: cifar, init: 7, input: [2, 15, 11], classes: 5
    }
    /// Compression alone, with a theta that floors and k = 5 in the second block.
    Compressed = "compressed" {
        blocks: [3, 2], k: [3, 5], theta: 0.3, stem: cifar, init: 8, input: [3, 9, 14], classes: 6
    }
    /// BC with the CIFAR stem.
    Bc = "bc" {
        blocks: [3, 2, 2], k: 4, theta: 0.5, bottleneck, stem: cifar, init: 8,
        input: [3, 13, 13], classes: 10
    }
    /// BC with the ImageNet stem, on sides that round at every stage.
    ImageNetBc = "imagenet_bc" {
        blocks: [2, 2, 2, 2], k: 4, theta: 0.5, bottleneck, stem: imagenet, init: 8,
        input: [3, 33, 45], classes: 7
    }
    /// Compression with the ImageNet stem; 0.58 of 50 is 29, but 28 in floating point.
    ImageNetCompressed = "imagenet_compressed" {
        blocks: [2, 1], k: [3, 5], theta: 0.58, stem: imagenet, init: 44,
        input: [1, 30, 23], classes: 3
    }
    /// One block, and so no transition.
    OneBlock = "one_block" {
        blocks: [2], k: 3, bottleneck, stem: cifar, init: 5, input: [1, 7, 5], classes: 2
    }
}

/// A plan whose 1x1 convolutions read so many channels of so few pixels that several blocks of a CUDA launch
/// share a tile; how many do depends on whether a batch has one image or four.
pub fn many_channels() -> Plan {
    let block = BlockSpec {
        layers: 2,
        growth: 4,
    };
    let spec = Spec {
        blocks: vec![block],
        theta: Ratio::new(1, 1),
        bottleneck: Some(2),
        stem: StemKind::Cifar,
        init: 1024,
        input: [1, 16, 17],
        classes: 3,
        dropout: 0.0,
    };
    spec.plan().expect("a plan")
}

/// A plan whose transition has so many maps that its pooled input is kept.
pub fn many_maps() -> Plan {
    let block = BlockSpec {
        layers: 1,
        growth: 4,
    };
    let spec = Spec {
        blocks: vec![block; 2],
        theta: Ratio::new(1, 1),
        bottleneck: Some(2),
        stem: StemKind::Cifar,
        init: 260,
        input: [1, 5, 6],
        classes: 3,
        dropout: 0.0,
    };
    spec.plan().expect("a plan")
}

/// A plan whose last feature maps are one pixel.
pub fn one_pixel() -> Plan {
    let block = BlockSpec {
        layers: 1,
        growth: 4,
    };
    Spec {
        blocks: vec![block; 2],
        theta: Ratio::new(1, 2),
        bottleneck: Some(2),
        stem: StemKind::Cifar,
        init: 8,
        input: [3, 2, 2],
        classes: 3,
        dropout: 0.0,
    }
    .plan()
    .unwrap()
}

//! A network for Fashion-MNIST whose weights are here.

use densenet_runtime::densenet;

densenet! {
    /// DenseNet-BC with L = 100, k = 12 for the ten classes of Fashion-MNIST's 28x28 grey images:
    /// 4.76% error on its test images with the weights of [`CLOTHES_BC`].
    pub ClothesBc { blocks: [16, 16, 16], k: 12, theta: 0.5, bottleneck, input: [1, 28, 28] }
}

/// The file of [`ClothesBc`]'s trained weights.
pub const CLOTHES_BC: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/weights/clothes_bc.safetensors"
);

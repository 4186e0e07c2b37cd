//! DenseNet-BC on ImageNet: the paper's Table 1, and the wider 161 of the authors' repository.

use densenet_runtime::densenet;

densenet! {
    /// DenseNet-121 (paper, Table 1): top-1 error 25.02%, top-5 7.71% on one crop.
    pub DenseNet121 { blocks: [6, 12, 24, 16], k: 32, theta: 0.5, bottleneck }
}

densenet! {
    /// DenseNet-161, from the authors' repository: k = 48, and therefore a stem with 96 maps. Top-1
    /// error 22.2% on one crop.
    pub DenseNet161 { blocks: [6, 12, 36, 24], k: 48, theta: 0.5, bottleneck }
}

densenet! {
    /// DenseNet-169 (paper, Table 1): top-1 error 23.80%, top-5 6.85% on one crop.
    pub DenseNet169 { blocks: [6, 12, 32, 32], k: 32, theta: 0.5, bottleneck }
}

densenet! {
    /// DenseNet-201 (paper, Table 1): top-1 error 22.58%, top-5 6.34% on one crop.
    pub DenseNet201 { blocks: [6, 12, 48, 32], k: 32, theta: 0.5, bottleneck }
}

densenet! {
    /// DenseNet-264 (paper, Table 1): top-1 error 22.15%, top-5 6.12% on one crop. The name is the
    /// paper's; the network has 265 layers.
    pub DenseNet264 { blocks: [6, 12, 64, 48], k: 32, theta: 0.5, bottleneck }
}

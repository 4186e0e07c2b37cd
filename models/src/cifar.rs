//! The networks on CIFAR and SVHN (paper, Table 2): 32x32 images and three blocks.
//!
//! A name gives depth L and growth rate k. Networks with the suffix `C100` have CIFAR-100's
//! classes, the others the ten of CIFAR-10 and SVHN. These networks are for augmented images;
//! without augmentation the paper uses dropout 0.2, as in the networks with the suffix `Dropout`.

use densenet_runtime::densenet;

densenet! {
    /// DenseNet with L = 40, k = 12 for 10 classes (paper, Table 2): 5.24% error on CIFAR-10+.
    pub DenseNet40K12 { blocks: [12, 12, 12], k: 12 }
}

densenet! {
    /// DenseNet with L = 40, k = 12 for 100 classes (paper, Table 2): 24.42% error on CIFAR-100+.
    pub DenseNet40K12C100 { blocks: [12, 12, 12], k: 12, classes: 100 }
}

densenet! {
    /// DenseNet with L = 100, k = 12 for 10 classes (paper, Table 2): 4.10% error on CIFAR-10+.
    pub DenseNet100K12 { blocks: [32, 32, 32], k: 12 }
}

densenet! {
    /// DenseNet with L = 100, k = 12 for 100 classes (paper, Table 2): 20.20% error on CIFAR-100+.
    pub DenseNet100K12C100 { blocks: [32, 32, 32], k: 12, classes: 100 }
}

densenet! {
    /// DenseNet with L = 100, k = 24 for 10 classes (paper, Table 2): 3.74% error on CIFAR-10+.
    pub DenseNet100K24 { blocks: [32, 32, 32], k: 24 }
}

densenet! {
    /// DenseNet with L = 100, k = 24 for 100 classes (paper, Table 2): 19.25% error on CIFAR-100+.
    pub DenseNet100K24C100 { blocks: [32, 32, 32], k: 24, classes: 100 }
}

densenet! {
    /// DenseNet-BC with L = 100, k = 12 for 10 classes (paper, Table 2): 4.51% error on CIFAR-10+.
    pub DenseNetBC100K12 { blocks: [16, 16, 16], k: 12, theta: 0.5, bottleneck }
}

densenet! {
    /// DenseNet-BC with L = 100, k = 12 for 100 classes (paper, Table 2): 22.27% error on CIFAR-100+.
    pub DenseNetBC100K12C100 { blocks: [16, 16, 16], k: 12, theta: 0.5, bottleneck, classes: 100 }
}

densenet! {
    /// DenseNet-BC with L = 190, k = 40 for 10 classes (paper, Table 2): 3.46% error on CIFAR-10+.
    pub DenseNetBC190K40 { blocks: [31, 31, 31], k: 40, theta: 0.5, bottleneck }
}

densenet! {
    /// DenseNet-BC with L = 190, k = 40 for 100 classes (paper, Table 2): 17.18% error on CIFAR-100+.
    pub DenseNetBC190K40C100 { blocks: [31, 31, 31], k: 40, theta: 0.5, bottleneck, classes: 100 }
}

densenet! {
    /// DenseNet-BC with L = 250, k = 24 for 10 classes (paper, Table 2): 3.62% error on CIFAR-10+.
    pub DenseNetBC250K24 { blocks: [41, 41, 41], k: 24, theta: 0.5, bottleneck }
}

densenet! {
    /// DenseNet-BC with L = 250, k = 24 for 100 classes (paper, Table 2): 17.60% error on CIFAR-100+.
    pub DenseNetBC250K24C100 { blocks: [41, 41, 41], k: 24, theta: 0.5, bottleneck, classes: 100 }
}

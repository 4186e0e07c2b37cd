//! The networks for images without augmentation: CIFAR-10, CIFAR-100 and SVHN (paper, Table 2).
//! They are the networks of the same name without `Dropout`, with dropout 0.2 after each
//! convolution but the first (section 4.2).

use densenet_runtime::densenet;

densenet! {
    /// DenseNet with L = 40, k = 12 for 10 classes, with dropout 0.2 (paper, Table 2): 7.00% error
    /// on CIFAR-10, 1.79% on SVHN.
    pub DenseNet40K12Dropout { blocks: [12, 12, 12], k: 12, dropout: 0.2 }
}

densenet! {
    /// DenseNet with L = 40, k = 12 for 100 classes, with dropout 0.2 (paper, Table 2): 27.55%
    /// error on CIFAR-100.
    pub DenseNet40K12C100Dropout { blocks: [12, 12, 12], k: 12, classes: 100, dropout: 0.2 }
}

densenet! {
    /// DenseNet with L = 100, k = 12 for 10 classes, with dropout 0.2 (paper, Table 2): 5.77% error
    /// on CIFAR-10, 1.67% on SVHN.
    pub DenseNet100K12Dropout { blocks: [32, 32, 32], k: 12, dropout: 0.2 }
}

densenet! {
    /// DenseNet with L = 100, k = 12 for 100 classes, with dropout 0.2 (paper, Table 2): 23.79%
    /// error on CIFAR-100.
    pub DenseNet100K12C100Dropout { blocks: [32, 32, 32], k: 12, classes: 100, dropout: 0.2 }
}

densenet! {
    /// DenseNet with L = 100, k = 24 for 10 classes, with dropout 0.2 (paper, Table 2): 5.83% error
    /// on CIFAR-10, 1.59% on SVHN.
    pub DenseNet100K24Dropout { blocks: [32, 32, 32], k: 24, dropout: 0.2 }
}

densenet! {
    /// DenseNet with L = 100, k = 24 for 100 classes, with dropout 0.2 (paper, Table 2): 23.42%
    /// error on CIFAR-100.
    pub DenseNet100K24C100Dropout { blocks: [32, 32, 32], k: 24, classes: 100, dropout: 0.2 }
}

densenet! {
    /// DenseNet-BC with L = 100, k = 12 for 10 classes, with dropout 0.2 (paper, Table 2): 5.92% error
    /// on CIFAR-10, 1.76% on SVHN.
    pub DenseNetBC100K12Dropout { blocks: [16, 16, 16], k: 12, theta: 0.5, bottleneck, dropout: 0.2 }
}

densenet! {
    /// DenseNet-BC with L = 100, k = 12 for 100 classes, with dropout 0.2 (paper, Table 2): 24.15%
    /// error on CIFAR-100.
    pub DenseNetBC100K12C100Dropout { blocks: [16, 16, 16], k: 12, theta: 0.5, bottleneck, classes: 100, dropout: 0.2 }
}

densenet! {
    /// DenseNet-BC with L = 250, k = 24 for 10 classes, with dropout 0.2 (paper, Table 2): 5.19% error
    /// on CIFAR-10, 1.74% on SVHN.
    pub DenseNetBC250K24Dropout { blocks: [41, 41, 41], k: 24, theta: 0.5, bottleneck, dropout: 0.2 }
}

densenet! {
    /// DenseNet-BC with L = 250, k = 24 for 100 classes, with dropout 0.2 (paper, Table 2): 19.64%
    /// error on CIFAR-100.
    pub DenseNetBC250K24C100Dropout { blocks: [41, 41, 41], k: 24, theta: 0.5, bottleneck, classes: 100, dropout: 0.2 }
}

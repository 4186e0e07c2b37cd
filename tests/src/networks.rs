//! The networks of the golden files: one of each kind.

use densenet_runtime::plan::{BlockSpec, Plan, Ratio, Spec, StemKind};

/// Each network's name and plan.
pub fn all() -> Vec<(&'static str, Plan)> {
    use StemKind::{Cifar, ImageNet};
    let plan = |blocks: &[(usize, usize)], theta, bottleneck, stem, init, input, classes| {
        Spec {
            blocks: blocks
                .iter()
                .map(|&(layers, growth)| BlockSpec { layers, growth })
                .collect(),
            theta,
            bottleneck,
            stem,
            init,
            input,
            classes,
            dropout: 0.0,
        }
        .plan()
        .unwrap()
    };
    let half = Ratio::new(1, 2);
    vec![
        (
            "plain",
            plan(&[(2, 4); 3], Ratio::ONE, None, Cifar, 6, [3, 12, 12], 10),
        ),
        (
            "bottleneck",
            plan(
                &[(2, 3), (3, 3)],
                Ratio::ONE,
                Some(2),
                Cifar,
                7,
                [2, 15, 11],
                5,
            ),
        ),
        (
            "compressed",
            plan(
                &[(3, 3), (2, 5)],
                Ratio::new(3, 10),
                None,
                Cifar,
                8,
                [3, 9, 14],
                6,
            ),
        ),
        (
            "bc",
            plan(
                &[(3, 4), (2, 4), (2, 4)],
                half,
                Some(4),
                Cifar,
                8,
                [3, 13, 13],
                10,
            ),
        ),
        (
            "imagenet_bc",
            plan(&[(2, 4); 4], half, Some(4), ImageNet, 8, [3, 33, 45], 7),
        ),
        (
            "imagenet_compressed",
            plan(
                &[(2, 3), (1, 5)],
                Ratio::new(58, 100),
                None,
                ImageNet,
                44,
                [1, 30, 23],
                3,
            ),
        ),
        (
            "one_block",
            plan(&[(2, 3)], Ratio::ONE, Some(4), Cifar, 5, [1, 7, 5], 2),
        ),
    ]
}

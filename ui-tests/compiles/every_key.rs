//! Every key, in another order than the documentation's, without a comma at the end.

use densenet_runtime::Network;
use densenet_runtime::plan::{Ratio, StemKind};

densenet_runtime::densenet! {
    /// Not square, and not RGB.
    pub(crate) Odd {
        memory: 0.5 GiB at 16,
        dropout: 0.2,
        classes: 7,
        input: [2, 33, 48],
        init: 5,
        stem: imagenet,
        bottleneck: 2,
        theta: 0.29,
        k: [3, 4],
        blocks: [2, 3]
    }
}

fn main() {
    let plan = Odd::PLAN;
    assert_eq!(Odd::NAME, "Odd");
    assert_eq!(plan.stem().kind, StemKind::ImageNet);
    assert_eq!((plan.stem().channels, plan.stem().height, plan.stem().width), (2, 33, 48));
    assert_eq!(plan.stem().maps, 5);
    assert_eq!(plan.blocks()[0].bottleneck, Some(6));
    assert_eq!(plan.blocks()[1].growth, 4);
    assert_eq!(plan.classes(), 7);
    assert_eq!(plan.dropout(), 0.2);
    assert_eq!(Some(plan.transitions()[0].output), Ratio::new(29, 100).floor_of(5 + 2 * 3));
}

//! Classes by name, as a constant of the network.

use densenet_runtime::Network;

densenet_runtime::densenet! {
    pub Pets { blocks: [2, 2], k: 4, classes: ["cat", "dog", r"snowy owl",] }
}

densenet_runtime::densenet! {
    pub Numbered { blocks: [2, 2], k: 4, classes: 3 }
}

const _: [u8; Pets::CLASSES.len()] = [0; 3];

fn main() {
    assert_eq!(Pets::CLASSES, ["cat", "dog", "snowy owl"]);
    assert_eq!(Pets::PLAN.class_names(), Pets::CLASSES);
    assert!(Numbered::CLASSES.is_empty());
    assert_eq!(Numbered::PLAN.classes(), 3);
}

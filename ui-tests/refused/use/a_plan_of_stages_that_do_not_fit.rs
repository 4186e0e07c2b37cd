//! What generated code calls refuses stages that do not go together, also when it is written by hand.

use densenet_runtime::plan::{Block, Plan, Stem, StemKind};

const STEM: Stem = Stem {
    kind: StemKind::Cifar,
    channels: 3,
    height: 8,
    width: 8,
    maps: 8,
};

const BLOCK: Block = Block {
    input: 9,
    layers: 1,
    growth: 4,
    bottleneck: None,
    height: 8,
    width: 8,
};

const _: Plan = Plan::of_stages(STEM, &[BLOCK], &[], 10, 0.0);

fn main() {}

//! Everything that is known before a network runs is known to the compiler.

use densenet_runtime::plan::Recompute;

densenet_runtime::densenet! {
    pub Small { blocks: [2, 3], k: 4, theta: 0.5, bottleneck }
}

const KEPT: u64 = Small::training_bytes(64, Recompute::Nothing);
const RECOMPUTED: u64 = Small::training_bytes(64, Recompute::Bottlenecks);
const _: () = assert!(RECOMPUTED < KEPT && KEPT < 64 << 20);
const _: () = assert!(Small::LAYERS == 1 + 2 * 5 + 1 + 1);
const _: () = assert!(Small::MULTIPLY_ADDS > Small::PARAMETERS as u64);
const _: [f32; SmallBlock2::PLAN.output()] = [0.0; 20];

fn main() {}

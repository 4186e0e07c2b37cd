//! An assignment asks no trait of ours, so rustc says it in its own words: the two types, with
//! their shapes. What says it in ours is `transplant`.

use densenet_runtime::dfdx::prelude::*;

densenet_runtime::densenet! {
    pub Small {
        blocks: [2, 2],
        k: 4,
        theta: 0.5,
        bottleneck,
        input: [3, 224, 224],
    }
}

densenet_runtime::densenet! {
    pub Wide {
        blocks: [2, 2],
        k: 8,
        theta: 0.5,
        bottleneck,
    }
}

fn main() {
    let device = Cpu::default();
    let mut network = device.build_module::<Small, f32>();
    let wide = device.build_module::<Wide, f32>();
    network.stem.conv.weight = wide.stem.conv.weight;
    network.block1.layer1 = wide.block1.layer1;
    network.transition1 = wide.transition1;
}

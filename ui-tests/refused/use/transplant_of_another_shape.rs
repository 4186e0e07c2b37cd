use densenet_runtime::dfdx::prelude::*;
use densenet_runtime::{Network, nn::Transplant};

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
    let _ = network.stem.conv.transplant(&wide.stem.conv);
    let _ = network.block1.layer1.transplant(&wide.block1.layer1);
    let _ = network.transition1.transplant(&wide.transition1);
    let _ = network.block1.transplant(&wide.block1);
    let _ = network.transplant_features(&wide);
}

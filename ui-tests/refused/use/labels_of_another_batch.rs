//! The classes are right here, and rustc says in a line what is not.

use densenet_runtime::dfdx::prelude::*;

densenet_runtime::densenet! {
    pub Small {
        blocks: [2, 2],
        k: 4,
        theta: 0.5,
        bottleneck,
    }
}

fn main() {
    let device = Cpu::default();
    let network = device.build_module::<Small, f32>();
    let images: Tensor<Rank4<8, 3, 32, 32>, f32, Cpu> = device.zeros();
    let labels: Tensor<Rank2<4, 10>, f32, Cpu> = device.zeros();
    let _ = Small::cross_entropy(network.forward(images), labels);
}

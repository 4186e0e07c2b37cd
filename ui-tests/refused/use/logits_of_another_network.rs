use densenet_runtime::dfdx::prelude::*;

densenet_runtime::densenet! {
    pub Small {
        blocks: [2, 2],
        k: 4,
        theta: 0.5,
        bottleneck,
    }
}

densenet_runtime::densenet! {
    pub Fine {
        blocks: [2, 2],
        k: 4,
        classes: 100,
    }
}

fn main() {
    let device = Cpu::default();
    let fine = device.build_module::<Fine, f32>();
    let images: Tensor<Rank4<8, 3, 32, 32>, f32, Cpu> = device.zeros();
    let labels: Tensor<Rank2<8, 10>, f32, Cpu> = device.zeros();
    let _ = Small::cross_entropy(fine.forward(images), labels);
}

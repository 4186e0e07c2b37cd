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

fn main() {
    let device = Cpu::default();
    let mut network = device.build_module::<Small, f32>();
    let gradients = network.alloc_grads();
    let images: Tensor<Rank4<8, 3, 224, 224>, f32, Cpu> = device.zeros();
    let labels: Tensor<Rank2<8, 100>, f32, Cpu> = device.zeros();
    let logits = network.forward_mut(images.traced(gradients));
    let _ = Small::cross_entropy(logits, labels);
}

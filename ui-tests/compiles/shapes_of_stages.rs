//! Each stage runs by itself, with its own static shapes, on batches of any kind.

use densenet_runtime::dfdx::prelude::*;

densenet_runtime::densenet! {
    pub Small { blocks: [2, 3], k: 4, theta: 0.5, bottleneck, input: [3, 64, 48], classes: 7 }
}

type Images<B, T = NoneTape> = Tensor<(B, Const<3>, Const<64>, Const<48>), f32, Cpu, T>;
type Logits<B, T = NoneTape> = Tensor<(B, Const<7>), f32, Cpu, T>;
type Tape = OwnedTape<f32, Cpu>;

#[allow(dead_code)]
fn features<B: Dim>(network: &Small, images: Images<B>) -> [usize; 4] {
    let x: Tensor<(B, Const<8>, Const<64>, Const<48>), f32, Cpu> = network.stem.forward(images);
    let x: Tensor<(B, Const<16>, Const<64>, Const<48>), f32, Cpu> = network.block1.forward(x);
    let x: Tensor<(B, Const<8>, Const<32>, Const<24>), f32, Cpu> = network.transition1.forward(x);
    let x: Tensor<(B, Const<20>, Const<32>, Const<24>), f32, Cpu> = network.block2.forward(x);
    x.shape().concrete()
}

#[allow(dead_code)]
fn any_batch<B: Dim>(network: &mut Small, images: Images<B>, gradients: Gradients<f32, Cpu>) {
    let _: Logits<B> = network.forward(images.clone());
    let _: Logits<B, Tape> = network.forward_mut(images.traced(gradients));
}

#[allow(dead_code)]
fn known_batch(network: &mut Small, images: Images<Const<8>>, gradients: Gradients<f32, Cpu>) {
    let _: Logits<Const<8>, Tape> = network.forward_mut(images.traced(gradients));
}

#[allow(dead_code)]
fn unknown_batch(network: &Small, images: Images<usize>) {
    let _: Logits<usize> = network.forward(images);
}

fn main() {
    let device = Cpu::default();
    let network = device.build_module::<Small, f32>();
    let block: SmallBlock1 = device.build_module::<SmallBlock1, f32>();
    assert_eq!(SmallBlock1::PLAN.output(), 16);
    assert_eq!(block.num_trainable_params(), network.block1.num_trainable_params());
    let _ = device.build_module::<Small, f64>();
}

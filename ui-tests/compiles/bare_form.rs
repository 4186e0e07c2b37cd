//! Without a name it is `DenseNet`, also inside a function.

use densenet_runtime::dfdx::prelude::*;

fn main() {
    densenet_runtime::densenet! { blocks: [2, 2], k: 4, theta: 0.5, bottleneck }

    let network: DenseNet = Cpu::default().build_module::<DenseNet, f32>();
    assert_eq!(network.num_trainable_params(), DenseNet::PARAMETERS);
}

densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 48, 32]
        k: 32,
        theta 0.5,
        bottleneck stem: imagenet,
        init: 64 maps,
        = 3,
    }
}

fn main() {}

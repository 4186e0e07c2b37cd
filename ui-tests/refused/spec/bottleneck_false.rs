densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 48, 32],
        k: 32,
        bottleneck: false,
    }
}

fn main() {}

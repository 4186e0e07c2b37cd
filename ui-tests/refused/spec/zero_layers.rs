densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 0, 48, 32],
        k: 32,
    }
}

fn main() {}

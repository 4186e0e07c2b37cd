densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 48, 32],
        k: 32,
        theta: 0.5,
        k: 48,
    }
}

fn main() {}

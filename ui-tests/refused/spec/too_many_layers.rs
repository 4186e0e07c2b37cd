densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 5000, 32],
        k: 32,
    }
}

fn main() {}

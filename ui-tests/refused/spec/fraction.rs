densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 48, 32],
        k: 32,
        theta: 1/2,
        dropout: 1 / 5,
    }
}

fn main() {}

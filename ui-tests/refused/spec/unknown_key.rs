densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 48, 32],
        k: 32,
        grow_rate: 32,
        colour: 3,
    }
}

fn main() {}

densenet_runtime::densenet! {
    pub Network {
        blocks: [6, twelve, 48.0 32],
        k: [32, "32", 32u8, -32],
    }
}

fn main() {}

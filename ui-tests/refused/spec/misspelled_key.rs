// Each is one error: what is misspelled is not missing, too.
densenet_runtime::densenet! {
    pub Network {
        BLOCKS: [6, 12, 48, 32],
        growth_rate: 32,
    }
}

fn main() {}

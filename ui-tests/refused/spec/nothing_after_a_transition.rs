densenet_runtime::densenet! {
    pub Network {
        blocks: [1, 1],
        k: 1,
        init: 1,
        theta: 0.4,
    }
}

fn main() {}

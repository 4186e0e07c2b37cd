densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 48, 32],
        k: 32,
        dropout: 1,
    }
}

mod negative {
    densenet_runtime::densenet! { blocks: [2, 2], k: 4, dropout: -0.2 }
}

fn main() {}

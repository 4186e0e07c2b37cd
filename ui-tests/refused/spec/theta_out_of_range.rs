densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 48, 32],
        k: 32,
        theta: 1.5,
    }
}

mod zero {
    densenet_runtime::densenet! { blocks: [2, 2], k: 4, theta: 0.0 }
}

mod negative {
    densenet_runtime::densenet! { blocks: [2, 2], k: 4, theta: -0.5 }
}

fn main() {}

densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 48, 32],
        k: 32,
        input: [3, 24, 24],
    }
}

mod not_square {
    densenet_runtime::densenet! { blocks: [6, 12, 48, 32], k: 32, input: [3, 224, 16] }
}

mod by_default {
    densenet_runtime::densenet! { blocks: [2, 2, 2, 2, 2, 2, 2], stem: cifar, k: 12 }
}

fn main() {}

densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 48, 32],
        k: 0,
    }
}

mod one_of_them {
    densenet_runtime::densenet! { blocks: [2, 2], k: [4, 0] }
}

fn main() {}

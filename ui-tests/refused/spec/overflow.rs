densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 4000, 32],
        k: 2000000000,
    }
}

mod too_large_a_number {
    densenet_runtime::densenet! { blocks: [2, 99999999999999999999], k: 3000000000 }
}

fn main() {}

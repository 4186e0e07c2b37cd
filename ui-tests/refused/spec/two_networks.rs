densenet_runtime::densenet! {
    pub One { blocks: [2, 2], k: 4 }
    pub Two { blocks: [2, 2], k: 4 }
}

fn main() {}

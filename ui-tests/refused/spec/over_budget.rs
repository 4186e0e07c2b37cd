densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 48, 32],
        k: 32,
        theta: 0.5,
        bottleneck,
        memory: 4 GiB at 256,
    }
}

mod with_recompute_alone {
    densenet_runtime::densenet! {
        blocks: [6, 12, 48, 32], k: 32, theta: 0.5, bottleneck, memory: 256 MiB at 1
    }
}

mod never {
    densenet_runtime::densenet! {
        blocks: [6, 12, 48, 32], k: 32, theta: 0.5, bottleneck, memory: 0.1 GiB at 1
    }
}

mod unit {
    densenet_runtime::densenet! { blocks: [2, 2], k: 4, memory: 4 Gib at 256 }
}

fn main() {}

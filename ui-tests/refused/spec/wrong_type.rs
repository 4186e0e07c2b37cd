densenet_runtime::densenet! {
    pub Network {
        blocks: 6,
        k: "32",
        theta: half,
        bottleneck: true,
        stem: resnet,
        init: 64.0,
        input: [3, 224],
        classes: 10 + 1,
        dropout: [0.2],
        memory: 24 GiB,
    }
}

fn main() {}

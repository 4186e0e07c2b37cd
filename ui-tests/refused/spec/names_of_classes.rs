densenet_runtime::densenet! {
    pub Network {
        blocks: [2, 2],
        k: 4,
        theta: 1.5,
        classes: ["cat", "", "dog", owl, "cat", 5 "hen", b"cow", "fox"suffix],
    }
}

fn main() {}

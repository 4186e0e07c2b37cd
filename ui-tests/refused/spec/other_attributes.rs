densenet_runtime::densenet! {
    /// A network.
    #[derive(PartialEq)]
    #[densenet(path = here)]
    pub Network {
        blocks: [2, 2],
        k: 4,
    }
}

fn main() {}

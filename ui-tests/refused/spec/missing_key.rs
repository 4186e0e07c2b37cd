densenet_runtime::densenet! {
    pub Network {
        theta: 0.5,
    }
}

fn main() {}

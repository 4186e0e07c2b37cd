//! The runtime under another path.

mod mine {
    pub mod engine {
        pub use densenet_runtime::*;
    }
}

mine::engine::densenet! {
    #[densenet(crate = crate::mine::engine)]
    pub Network { blocks: [2, 2], k: 4 }
}

fn main() {
    assert_eq!(Network::LAYERS, 2 + 2 + 3);
}

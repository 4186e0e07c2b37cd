use densenet_runtime::dfdx::prelude::*;

mod public {
    densenet_runtime::densenet! {
        pub struct Network {
            blocks: [2, 2],
            k: 4,
        }
    }
}

mod private {
    densenet_runtime::densenet! {
        struct Network {
            blocks: [2, 2],
            k: 4,
        }
    }

    pub fn layers() -> usize {
        Network::LAYERS
    }
}

// The type exists all the same: its uses are not reported.
fn main() {
    let _: public::Network = Cpu::default().build_module::<public::Network, f32>();
    private::layers();
}

use densenet_runtime::dfdx::prelude::*;

densenet_runtime::densenet! {
    pub Network {
        blocks: [6, 12, 0, 32],
        grow: 32,
        theta: 1.5,
        theta: 0.5,
        dropout: 1.0,
        input: [3, 24, 24],
    }
}

// The type exists all the same: its uses are not reported.
fn main() {
    let _: Network = Cpu::default().build_module::<Network, f32>();
}

//! CUDA devices that average by NCCL, beside the backward pass, recorded as one graph and replayed.
//! NCCL and the device are emulated: streams run as late as events let them, so that a gradient
//! averaged before it is complete, or used before it is averaged, is seen.

use cuda_emulator::Emulator;
use densenet_tests::ranks::{follow_the_cpu, meet, on_cuda, places, steps, together};

#[test]
fn devices_that_average_by_nccl_follow_ranks_on_the_cpu() {
    let emulator = Emulator::load_with_nccl(env!("CARGO_TARGET_TMPDIR"));
    for seed in 0..4 {
        emulator.seed(seed);
        let found = together(places().into(), |place, rank| {
            let mut executor = on_cuda(env!("CARGO_TARGET_TMPDIR"));
            executor.join(meet(place)).unwrap();
            steps(&mut executor, rank)
        });
        follow_the_cpu(&found);
    }
}

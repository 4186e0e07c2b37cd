//! NCCL's averages run beside the backward pass: in a stream of their own, which the kernels do not
//! wait for before the backward pass is over, and on multiprocessors that kernels leave to them. The
//! tests examine the calls of the (emulated) driver.

use cuda_emulator::{Call, Emulator, Kind};
use densenet_runtime::cuda::CudaDevice;
use densenet_runtime::parallel::Ranks;
use densenet_runtime::{Batch, Executor, Pixels, Step};
use densenet_tests::emulated::{self, alone, folder, options};
use densenet_tests::executor::load;
use densenet_tests::networks::many_channels;
use densenet_tests::random;
use densenet_tests::ranks::{join, on_cuda, steps, together, two_ranks};

/// The kernel that the backward pass ends with.
const LAST: &str = "stem_weight";

#[test]
fn averages_have_a_stream_of_their_own_beside_the_backward_pass() {
    let _alone = alone();
    let emulator = Emulator::load_with_nccl(folder());
    let calls = emulator.calls(|| {
        together(two_ranks().into(), |ranks, rank| {
            let mut executor = on_cuda();
            executor.join(join(ranks)).unwrap();
            steps(&mut executor, rank)
        });
    });
    let averages = |calls: &[&Call]| -> Vec<usize> {
        let is = |&n: &usize| calls[n].kind == Kind::Average;
        (0..calls.len()).filter(is).collect()
    };
    let mut threads: Vec<_> = calls.iter().map(|call| call.thread).collect();
    threads.sort();
    threads.dedup();
    let mut ranks = 0;
    for thread in threads {
        let own: Vec<_> = calls.iter().filter(|call| call.thread == thread).collect();
        let kernels = own.iter().filter(|call| call.kind == Kind::Launch);
        let mut main: Vec<_> = kernels.map(|call| call.stream).collect();
        main.sort();
        main.dedup();
        let all = averages(&own);
        if all.is_empty() {
            continue;
        }
        ranks += 1;
        assert_eq!(main.len(), 1, "one stream computes");
        assert!(all.iter().all(|&n| own[n].stream != main[0]));

        // The step that is recorded, and the one of fewer images, which is not.
        let recorded: Vec<_> = own.iter().copied().filter(|call| call.captured).collect();
        let last_replay = own.iter().rposition(|call| call.kind == Kind::Replay);
        let eager = own[last_replay.expect("a replay")..].to_vec();
        for (what, calls) in [("recorded", recorded), ("eager", eager)] {
            let averages = averages(&calls);
            assert!(
                averages.len() > 5,
                "{what}: an average a stage, {averages:?}"
            );
            let after = calls[averages[0]..].iter();
            let kernels: Vec<_> = after
                .filter(|call| call.stream == main[0])
                .take_while(|call| call.kind != Kind::Wait)
                .filter(|call| call.kind == Kind::Launch)
                .map(|call| call.kernel.as_str())
                .collect();
            assert!(
                kernels.contains(&LAST),
                "{what}: kernels wait for an average after {kernels:?}"
            );
        }
    }
    assert_eq!(ranks, 2);
}

/// The most blocks of a launch of this kernel.
fn most_blocks(calls: &[Call], kernel: &str) -> u64 {
    let launches = calls.iter().filter(|call| call.kernel == kernel);
    launches.map(|call| call.blocks).max().expect("a launch")
}

/// An H100 has 132 multiprocessors. These kernels have two blocks on each at once. Alone, there are as
/// many slices as fit on all of them; beside NCCL, 16 are left to it.
#[test]
fn weights_gradients_leave_multiprocessors_to_averages() {
    const IMAGES: usize = 15;
    let _alone = alone();
    let emulator = Emulator::load_with_nccl(folder());
    let plan = many_channels();
    let differentiate = |ranks: Option<Ranks>| {
        let device = CudaDevice::open(0).unwrap();
        let mut executor = emulated::on_cuda(&device, &plan, options(IMAGES));
        if let Some(ranks) = ranks {
            executor.join(join(ranks)).unwrap();
        }
        load(&mut executor, &random::state(&plan, 1));
        let (pixels, labels) = random::batch(&plan, IMAGES, 1);
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
        executor.differentiate(batch, Step::default()).unwrap();
    };
    let of_one = emulator.calls(|| differentiate(None));
    let of_two = emulator.calls(|| {
        together(two_ranks().into(), |ranks, _| differentiate(Some(ranks)));
    });
    for kernel in ["pointwise_back", "stem_weight"] {
        let [alone, joined] = [&of_one, &of_two].map(|calls| most_blocks(calls, kernel));
        assert!(2 * 116 < alone && alone <= 2 * 132, "{kernel}: {alone}");
        assert!(joined <= 2 * 116, "{kernel} beside NCCL: {joined}");
    }
}

//! NCCL's averages run beside the backward pass: in a stream of their own, which the kernels do not
//! wait for before the backward pass is over. The tests examine the calls of the (emulated) driver.

use cuda_emulator::{Call, Emulator, Kind};
use densenet_tests::emulated::folder;
use densenet_tests::ranks::{join, on_cuda, steps, together, two_ranks};

/// The kernel that the backward pass ends with.
const LAST: &str = "stem_weight";

#[test]
fn averages_have_a_stream_of_their_own_beside_the_backward_pass() {
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

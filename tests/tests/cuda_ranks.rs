//! CUDA devices that train together: each gradient is averaged when it is complete, once, stage by
//! stage, and the ranks follow what ranks on the CPU do. Two ranks share an emulated device, and
//! average through the host.

use std::thread;

use densenet_runtime::parallel::Threads;
use densenet_tests::emulated::device;
use densenet_tests::is_installed;
use densenet_tests::ranks::{
    are_equal, follow_the_cpu, join, on_cuda, steps, steps_of_which_one_is_broken, together,
    two_ranks,
};

#[test]
fn devices_that_train_together_follow_ranks_on_the_cpu() {
    device();
    let found = together(Threads::group(2), |collective, rank| {
        let mut executor = on_cuda();
        executor.join_by_host(Box::new(collective)).unwrap();
        steps(&mut executor, rank)
    });
    follow_the_cpu(&found);
}

#[test]
fn where_the_loss_of_one_is_not_finite_none_descends() {
    device();
    are_equal(&together(Threads::group(2), |collective, rank| {
        let mut executor = on_cuda();
        executor.join_by_host(Box::new(collective)).unwrap();
        steps_of_which_one_is_broken(&mut executor, rank)
    }));
}

#[test]
fn without_nccl_the_error_names_it() {
    if is_installed("libnccl.so") {
        return;
    }
    device();
    let [first, second] = two_ranks();
    thread::scope(|scope| {
        let other = scope.spawn(|| join(second));
        let group = join(first);
        let mut executor = on_cuda();
        let error = executor.join(group).unwrap_err().to_string();
        assert!(error.contains("no NCCL"), "{error}");
        assert!(error.contains("libnccl.so, libnccl.so.2"), "{error}");
        let path = std::env::var("LD_LIBRARY_PATH").ok();
        let path = path.filter(|path| !path.is_empty());
        let path = path.unwrap_or_else(|| "not set".into());
        let places = format!("LD_LIBRARY_PATH ({path}) and the system's folders");
        assert!(error.contains(&places), "{error}");
        drop(other.join().unwrap());
    });
}

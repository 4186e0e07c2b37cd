//! The CUDA executor refuses impossible requests in the CPU executor's words, and nothing changes.

use densenet_runtime::cuda::{self, CudaError};
use densenet_runtime::{Batch, Executor, ExecutorError, Pixels, Sgd, Step};
use densenet_tests::emulated::{alone, device, on_cuda, options};
use densenet_tests::executor::{load, state};
use densenet_tests::networks::one_pixel;
use densenet_tests::random;

#[test]
fn one_image_does_not_train_maps_of_one_pixel_and_changes_nothing() {
    let _alone = alone();
    let (_emulator, device) = device();
    let plan = one_pixel();
    let mut executor = on_cuda(&device, &plan, options(2));
    load(&mut executor, &random::state(&plan, 1));
    let (pixels, labels) = random::batch(&plan, 2, 2);
    let two = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    executor.differentiate(two, Step::default()).unwrap();
    let before = state(&executor);
    let (pixels, labels) = random::batch(&plan, 1, 3);
    let one = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    let (step, sgd) = (Step::default(), Sgd::default());
    let errors = [
        executor.differentiate(one, step).err(),
        executor.start(one, step).err(),
        executor.step(one, step, sgd.into()).err(),
    ];
    for error in errors {
        let error = error.unwrap();
        assert!(matches!(error, ExecutorError::OneValue { .. }), "{error}");
        assert!(error.to_string().contains("block 2"), "{error}");
    }
    assert_eq!(state(&executor), before);
    assert!(executor.evaluate(one).unwrap().loss.is_finite());
}

#[test]
fn a_batch_that_cannot_be_counted_is_refused_when_an_executor_is_made() {
    let _alone = alone();
    let (_emulator, device) = device();
    for batch in [0, 1 << 60, usize::MAX] {
        let options = cuda::CudaOptions::for_batch(batch);
        let error = cuda::CudaExecutor::new(&device, one_pixel(), options).err();
        assert!(matches!(
            error,
            Some(CudaError::Executor(ExecutorError::Capacity { found, .. })) if found == batch
        ));
    }
}

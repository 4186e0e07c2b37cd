//! The emulated CUDA device, and executors on it.

use cuda_emulator::Emulator;
pub use cuda_emulator::{alone, folder, root};
use densenet_runtime::cuda::{self, Cache, CudaDevice, Placement};
use densenet_runtime::plan::Plan;
use densenet_runtime::weights::State;

/// The emulator of this process, and its device.
///
/// # Panics
/// If the emulator cannot be built.
pub fn device() -> (&'static Emulator, CudaDevice) {
    let emulator = Emulator::load(folder());
    let device = CudaDevice::open(0).unwrap_or_else(|error| panic!("{error}"));
    (emulator, device)
}

/// The emulator and its device, for tests of settings that only an emulated device has: its memory,
/// its failures, the accesses of its kernels. A card has none, and the test does nothing.
pub fn device_that_is_emulated() -> Option<(&'static Emulator, CudaDevice)> {
    let (emulator, device) = device();
    (!emulator.is_card()).then_some((emulator, device))
}

/// Buffers apart, so that an access beyond one is seen; kernels kept for the next run.
pub fn options(batch: usize) -> cuda::CudaOptions {
    cuda::CudaOptions {
        cache: Cache::Folder(folder().join("kernels")),
        placement: Placement::Apart,
        ..cuda::CudaOptions::for_batch(batch)
    }
}

/// The same for a frozen network.
pub fn frozen_options(batch: usize) -> cuda::FrozenOptions {
    let executor = options(batch);
    cuda::FrozenOptions {
        cache: executor.cache,
        placement: executor.placement,
        ..cuda::FrozenOptions::for_batch(batch)
    }
}

/// A network that is frozen on a device.
///
/// # Panics
/// If it cannot be.
pub fn frozen_on_cuda(
    device: &CudaDevice,
    plan: &Plan,
    state: &State,
    options: cuda::FrozenOptions,
) -> cuda::Frozen {
    let frozen = cuda::Frozen::new(device, plan, &state.parameters, &state.running, options);
    frozen.unwrap_or_else(|error| panic!("{error}"))
}

/// An executor on a device.
///
/// # Panics
/// If it cannot be made.
pub fn on_cuda(device: &CudaDevice, plan: &Plan, options: cuda::CudaOptions) -> cuda::CudaExecutor {
    let executor = cuda::CudaExecutor::new(device, plan.clone(), options);
    executor.unwrap_or_else(|error| panic!("{error}"))
}

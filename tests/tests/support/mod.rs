//! The emulated device, and executors on it and on the CPU.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cuda_emulator::Emulator;
use densenet_runtime::cpu::{self, Precision};
use densenet_runtime::cuda::{self, Cache, Device, Placement};
use densenet_runtime::plan::{Plan, Recompute};

/// Tests share the device, and some set its memory or break it.
static ALONE: Mutex<()> = Mutex::new(());

pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn device() -> (&'static Emulator, Device) {
    let emulator = Emulator::load(env!("CARGO_TARGET_TMPDIR"));
    let device = Device::open(0).unwrap_or_else(|error| panic!("{error}"));
    (emulator, device)
}

/// Buffers apart, so that what goes beyond one is seen; kernels kept for the next run.
pub fn options(batch: usize) -> cuda::Options {
    cuda::Options {
        cache: Cache::Folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels")),
        placement: Placement::Apart,
        ..cuda::Options::for_batch(batch)
    }
}

pub fn on_cuda(device: &Device, plan: &Plan, options: cuda::Options) -> cuda::Executor {
    let executor = cuda::Executor::new(device, plan.clone(), options);
    executor.unwrap_or_else(|error| panic!("{error}"))
}

pub fn on_cpu(
    plan: &Plan,
    batch: usize,
    recompute: Recompute,
    precision: Precision,
) -> cpu::Executor {
    let options = cpu::Options {
        recompute,
        precision,
        threads: 1,
        ..cpu::Options::for_batch(batch)
    };
    cpu::Executor::new(plan.clone(), options).unwrap()
}

//! Times how DenseNet-201 starts on the emulated device: first with an empty cache of compiled
//! kernels, then with that cache. Prints a line of JSON for each start; fails if the second takes a
//! second or more.
//!
//! Without compilation, a start consists of the host's work, the same as on a card (sources and
//! their keys, entries read and checked, memory laid out), and of loading modules and clearing
//! memory, which the emulator does here.
//!
//! ```text
//! cargo run --release -p densenet-tests --example warm_start
//! ```

use std::time::Instant;

use cuda_emulator::Emulator;
use densenet_models::DenseNet201;
use densenet_runtime::cuda::{self, Cache, CudaDevice};
use densenet_runtime::plan::Precision;
use densenet_runtime::{Network, console, say};
use serde_json::json;

/// Seconds within which a start with compiled kernels is done.
const GOAL: f64 = 1.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let _emulator = Emulator::load(folder.path());
    let device = CudaDevice::open(0)?;
    for cached in [false, true] {
        let start = Instant::now();
        let options = cuda::CudaOptions {
            precision: Precision::Bf16,
            cache: Cache::Folder(folder.path().join("kernels")),
            ..cuda::CudaOptions::for_batch(1)
        };
        let executor = cuda::CudaExecutor::new(&device, DenseNet201::PLAN, options)?;
        let seconds = start.elapsed().as_secs_f64();
        say!(
            "{}",
            json!({ "cached": cached, "seconds": seconds, "allocated_mb": executor.bytes() >> 20 })
        );
        console::check()?;
        if cached && seconds >= GOAL {
            return Err(format!("a start took {seconds:.1} s, not less than {GOAL} s").into());
        }
    }
    Ok(())
}

//! A call of a frozen network allocates nothing, on any of its threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use densenet_runtime::Pixels;
use densenet_runtime::cpu::{Frozen, FrozenOptions};
use densenet_runtime::plan::{BlockSpec, Ratio, Spec, StemKind};

/// Counts the allocations of all threads.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system's allocator's doing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_frozen_call_allocates_nothing() {
    for (stem, bottleneck) in [(StemKind::ImageNet, Some(4)), (StemKind::Cifar, None)] {
        let spec = Spec {
            blocks: vec![
                BlockSpec {
                    layers: 2,
                    growth: 12,
                };
                2
            ],
            theta: Ratio::new(1, 2),
            bottleneck,
            stem,
            init: 24,
            input: [3, 40, 36],
            classes: 10,
            dropout: 0.0,
        };
        let plan = spec.plan().unwrap();
        let parameters = vec![0.01; plan.parameter_count()];
        let running = vec![1.0; plan.running_count()];
        let options = FrozenOptions {
            threads: 2,
            ..FrozenOptions::for_batch(3)
        };
        let mut frozen = Frozen::new(&plan, &parameters, &running, options).unwrap();
        let images = vec![0.5; 3 * 3 * 40 * 36];
        let bytes = [7; 3 * 3 * 40 * 36];
        assert!(
            ALLOCATIONS.load(Ordering::Relaxed) > 0,
            "the counter counts"
        );
        // The test harness's own thread may allocate meanwhile, but not each time.
        let allocations = (0..5).map(|_| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for count in [3, 1, 2] {
                let len = count * 3 * 40 * 36;
                let found = frozen.infer(Pixels::Nchw(&images[..len]), count).is_ok();
                let bytes = Pixels::Nhwc {
                    bytes: &bytes[..len],
                    mean: &[0.5; 3],
                    deviation: &[0.5; 3],
                };
                assert!(found && frozen.infer(bytes, count).is_ok());
            }
            ALLOCATIONS.load(Ordering::Relaxed) - before
        });
        assert_eq!(allocations.min(), Some(0), "{stem:?}");
    }
}

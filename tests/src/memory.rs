//! The one counting allocator: how often memory is allocated, and how much is held.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with counters. It counts nothing in a program that does not make it its
/// `#[global_allocator]`.
pub struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OWN: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

/// Allocations of all threads so far.
fn allocations() -> usize {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Bytes that all threads hold now.
pub fn bytes() -> usize {
    BYTES.load(Ordering::Relaxed)
}

/// Does something a few times; returns the fewest allocations of all threads in one go. A thread of
/// the test harness may allocate meanwhile, but not each time.
///
/// # Panics
/// If nothing is counted.
pub fn fewest_allocations(times: usize, mut work: impl FnMut()) -> usize {
    let counted = |work: &mut dyn FnMut()| {
        let before = allocations();
        work();
        allocations() - before
    };
    let seen = counted(&mut || drop(std::hint::black_box(Box::new(0_u8))));
    assert!(seen > 0, "the allocator of `memory` is not this program's");
    (0..times).map(|_| counted(&mut work)).min().unwrap_or(0)
}

/// Does something; returns the most bytes that this thread held beyond those from before.
pub fn most_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = OWN.get();
    MOST.set(before);
    let result = work();
    (result, (MOST.get() - before) as usize)
}

fn take(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(bytes, Ordering::Relaxed);
    OWN.set(OWN.get() + bytes as isize);
    MOST.set(MOST.get().max(OWN.get()));
}

fn give(bytes: usize) {
    BYTES.fetch_sub(bytes, Ordering::Relaxed);
    OWN.set(OWN.get() - bytes as isize);
}

// SAFETY: everything is the system's allocator's doing. Counting allocates nothing: the counters
// need neither to be made nor to be dropped.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        give(layout.size());
        take(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        give(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

//! A team of threads that work on one thing at a time.
//!
//! A training step is a few hundred short phases with a barrier behind each, so the threads
//! spin for a moment before they sleep, and a phase costs no allocation. Work is divided by
//! thread index, never by who comes first: the same team gives the same bits.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};

/// How often a thread looks for work before it sleeps.
const SPINS: u32 = 20_000;

/// A job, with its lifetime erased for as long as [`Team::run`] waits for it.
type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Counts the phases; a change is the signal to start.
    phase: AtomicU64,
    /// The job of the present phase.
    job: UnsafeCell<Option<Job>>,
    /// Workers that have not finished the present phase.
    running: AtomicUsize,
    /// The workers end at the next phase.
    stop: AtomicBool,
    /// A worker's job panicked in the present phase.
    panicked: AtomicBool,
}

// SAFETY: `job` is written only by `Team::run` (which takes `&mut self`, so by one thread) while
// no worker is running, and published by the release store to `phase`; workers read it only
// behind the acquire load that saw the new phase and before they decrement `running`. The job
// itself is `Sync`, so calling it from several threads is fine.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is only followed while `Team::run` keeps the job alive.
unsafe impl Send for Shared {}

/// Some threads, one of them the caller's.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    sleepers: Vec<Thread>,
}

impl Team {
    /// A team of this many threads, the caller's included; at least one.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            phase: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            running: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        // A thread that cannot be had makes the team smaller, not the program fail.
        let workers: Vec<_> = (1..threads.max(1))
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("densenet-{index}"))
                    .spawn(move || work(&shared, index))
                    .ok()
            })
            .collect();
        let sleepers = workers
            .iter()
            .map(|worker| worker.thread().clone())
            .collect();
        Self {
            shared,
            workers,
            sleepers,
        }
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job` with 0, 1, ... up to the number of threads, each on its thread, and waits.
    pub fn run(&mut self, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return job(0);
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The pointer is dropped below, before `run` returns
        // or unwinds, and until then the caller's borrow lives.
        let erased = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(std::ptr::from_ref(job))
        };
        // SAFETY: no worker is running (each phase waits for all), so nobody reads `job` now.
        unsafe { *shared.job.get() = Some(erased) };
        shared.running.store(self.workers.len(), Ordering::Relaxed);
        shared.phase.fetch_add(1, Ordering::Release);
        for sleeper in &self.sleepers {
            sleeper.unpark();
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut spins = 0u32;
        while shared.running.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
        // SAFETY: all workers have finished the phase.
        unsafe { *shared.job.get() = None };
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!panicked, "a thread of the executor panicked");
    }

    /// Hands part t to thread t: there are at most as many parts as threads.
    pub fn each<P: Send>(&mut self, parts: &mut [P], job: impl Fn(usize, &mut P) + Sync) {
        assert!(parts.len() <= self.threads(), "more parts than threads");
        let parts = Parts(parts.as_mut_ptr(), parts.len());
        self.run(&|thread| {
            if let Some(part) = parts.get(thread) {
                job(thread, part);
            }
        });
    }
}

/// A slice that is handed out element by element.
struct Parts<P>(*mut P, usize);

// SAFETY: `Team::each` gives each element to one thread only, and `P` is `Send`.
unsafe impl<P: Send> Sync for Parts<P> {}

impl<P> Parts<P> {
    #[expect(
        clippy::mut_from_ref,
        reason = "each index is asked for by one thread only"
    )]
    fn get(&self, index: usize) -> Option<&mut P> {
        // SAFETY: `index` is in bounds, and `Team::run` calls its job once for each thread
        // index, so that no element is borrowed twice; the slice is mutably borrowed by `each`.
        (index < self.1).then(|| unsafe { &mut *self.0.add(index) })
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.phase.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker's panic was reported by the `run` that it happened in.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.phase.load(Ordering::Acquire) == seen {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                thread::park();
            }
        }
        seen += 1;
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: the phase has changed, so `run` has written the job and keeps it alive until
        // `running` is zero.
        let job = unsafe { *shared.job.get() };
        if let Some(job) = job {
            // SAFETY: as above.
            let done = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(index) }));
            if done.is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
        }
        shared.running.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_gets_its_part_in_every_phase() {
        let mut team = Team::new(3);
        let mut parts = vec![0usize; team.threads()];
        for _ in 0..100 {
            team.each(&mut parts, |thread, part| *part += thread + 1);
        }
        assert_eq!(parts, [100, 200, 300]);
    }

    #[test]
    fn a_panic_of_a_worker_reaches_the_caller_and_the_team_lives_on() {
        let mut team = Team::new(2);
        let panic = catch_unwind(AssertUnwindSafe(|| {
            team.run(&|thread| assert!(thread == 0, "on purpose"));
        }));
        assert!(panic.is_err());
        let mut parts = [0; 2];
        team.each(&mut parts, |_, part| *part = 7);
        assert_eq!(parts, [7, 7]);
    }

    #[test]
    fn fewer_parts_than_threads_are_fine() {
        let mut parts = [0; 1];
        Team::new(2).each(&mut parts, |_, part| *part = 1);
        assert_eq!(parts, [1]);
    }
}

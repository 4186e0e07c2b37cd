//! A team of threads that work on one job at a time.
//!
//! A training step is a few hundred short phases with a barrier after each, so the threads spin for
//! a moment before they sleep, and a phase allocates nothing. Threads without a core of their own
//! sleep at once: the thread that they wait for may need their core. Work is divided by thread
//! index, never by arrival: the same team gives the same bits.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};

/// How often a thread with a core of its own looks for work before it sleeps.
const SPINS: u32 = 20_000;

/// A job, with its lifetime erased for as long as [`Team::run`] waits for it.
type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Counts the phases. A change is the signal to start.
    phase: AtomicU64,
    /// The job of the current phase.
    job: UnsafeCell<Option<Job>>,
    /// The number of workers that have not finished the current phase.
    running: AtomicUsize,
    /// Whether the workers end at the next phase.
    stop: AtomicBool,
    /// The payload of the first worker's panic in the current phase.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whether the caller sleeps, or is about to, until no worker is running.
    waiting: AtomicBool,
    /// The caller's thread, of the last wait.
    caller: Mutex<Option<Thread>>,
    /// How often a thread looks before it sleeps.
    spins: u32,
}

// SAFETY: `job` is written only by `Team::run` (which takes `&mut self`, so by one thread) while no
// worker is running, and published by the release store to `phase`. Workers read it only after the
// acquire load that saw the new phase and before they decrement `running`. The job itself is
// `Sync`, so calling it from several threads is fine.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is only followed while `Team::run` keeps the job alive.
unsafe impl Send for Shared {}

/// A team of threads, one of them the caller's.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    sleepers: Vec<Thread>,
}

impl Shared {
    /// Waits until no worker is running.
    fn wait(&self) {
        for _ in 0..self.spins {
            if self.running.load(Ordering::Acquire) == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        *locked(&self.caller) = Some(thread::current());
        // These two operations and the worker's two have one order: either the caller sees that the
        // last worker has finished, or that worker sees that the caller waits.
        self.waiting.store(true, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) > 0 {
            thread::park();
        }
        self.waiting.store(false, Ordering::SeqCst);
    }

    /// Marks a worker as finished with the current phase.
    fn finish(&self) {
        let last = self.running.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.waiting.load(Ordering::SeqCst) {
            // The caller may be awake by now. Then this wakes it once too often, which is harmless.
            if let Some(caller) = &*locked(&self.caller) {
                caller.unpark();
            }
        }
    }
}

/// A panic leaves nothing half changed under these locks, so a poisoned lock is used.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Team {
    /// A team of this many threads, the caller's included; at least one.
    pub fn new(threads: usize) -> Self {
        let spins = if threads <= super::threads::own_cores() {
            SPINS
        } else {
            0
        };
        Self::that_spins(threads, spins)
    }

    fn that_spins(threads: usize, spins: u32) -> Self {
        let shared = Arc::new(Shared {
            phase: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            running: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            waiting: AtomicBool::new(false),
            caller: Mutex::new(None),
            spins,
        });
        // If a thread cannot be started, the team is smaller, and the program continues.
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

    /// The number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job` with 0, 1, ... up to the number of threads, each on its own thread, and waits
    /// for all. A panic continues in the caller: its own, or else that of the first worker that
    /// panicked.
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
        shared.wait();
        // SAFETY: all workers have finished the phase.
        unsafe { *shared.job.get() = None };
        let of_worker = locked(&shared.panic).take();
        match (own, of_worker) {
            (Ok(()), None) => {}
            (Ok(()), Some(panic)) => resume_unwind(panic),
            (Err(panic), of_worker) => {
                forget(of_worker);
                resume_unwind(panic);
            }
        }
    }

    /// Gives part t to thread t. There are at most as many parts as threads.
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

/// A slice whose elements are given out one by one.
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
            // A worker's panic was reported by the `run` in which it happened.
            let _ = worker.join();
        }
    }
}

/// Leaks the payload of a job's panic: dropping it could panic again, in the middle of a phase.
fn forget(panic: Option<Box<dyn Any + Send>>) {
    std::mem::forget(panic);
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.phase.load(Ordering::Acquire) == seen {
            spins += 1;
            if spins < shared.spins {
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
            if let Err(panic) = done {
                let mut first = locked(&shared.panic);
                let other = match *first {
                    None => first.replace(panic),
                    Some(_) => Some(panic),
                };
                forget(other);
            }
        }
        shared.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

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
        let message = panic.unwrap_err();
        assert_eq!(message.downcast_ref::<&str>(), Some(&"on purpose"));
        works(&mut team);
    }

    fn works(team: &mut Team) {
        let mut parts = vec![0; team.threads()];
        team.each(&mut parts, |thread, part| *part = 7 + thread);
        let expected: Vec<_> = (7..).take(parts.len()).collect();
        assert_eq!(parts, expected);
    }

    /// Panics when it is dropped, with another one inside if there is one.
    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic_any(Bomb(self.0 - 1));
            }
        }
    }

    #[test]
    fn panics_that_panic_when_they_are_dropped_leave_the_team_at_work() {
        type Panics = fn(usize) -> bool;
        let who: [Panics; 4] = [
            |thread| thread == 0,
            |thread| thread == 2,
            |thread| thread > 0,
            |_| true,
        ];
        for spins in [SPINS, 0] {
            let mut team = Team::that_spins(4, spins);
            for panics in who {
                let panic = catch_unwind(AssertUnwindSafe(|| {
                    team.run(&|thread| {
                        if panics(thread) {
                            panic_any(Bomb(2));
                        }
                    });
                }));
                let bomb = panic.unwrap_err();
                assert!(bomb.is::<Bomb>());
                std::mem::forget(bomb);
                works(&mut team);
            }
        }
    }

    #[test]
    fn a_payload_that_the_caller_drops_panics_there_alone() {
        let mut team = Team::new(3);
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            let panic = catch_unwind(AssertUnwindSafe(|| {
                team.run(&|_| panic_any(Bomb(1)));
            }));
            drop(panic);
        }));
        assert!(dropped.unwrap_err().is::<Bomb>());
        works(&mut team);
    }

    #[test]
    fn threads_without_cores_of_their_own_meet_behind_every_phase() {
        let mut team = Team::that_spins(7, 0);
        let mut parts = vec![0usize; team.threads()];
        for phase in 0..2_000 {
            team.each(&mut parts, |_, part| {
                assert_eq!(*part, phase);
                *part += 1;
            });
        }
        assert_eq!(parts, vec![2_000; team.threads()]);
    }

    #[test]
    fn a_team_that_goes_from_thread_to_thread_wakes_the_one_that_waits() {
        let mut team = Team::that_spins(3, 0);
        for _ in 0..20 {
            team = thread::spawn(move || {
                for _ in 0..20 {
                    works(&mut team);
                }
                team
            })
            .join()
            .unwrap();
        }
    }

    #[test]
    fn more_threads_than_cores_do_not_spin() {
        let cores = crate::threads::own_cores();
        assert_eq!(Team::new(cores).shared.spins, SPINS);
        assert_eq!(Team::new(cores + 1).shared.spins, 0);
    }

    #[test]
    fn fewer_parts_than_threads_are_fine() {
        let mut parts = [0; 1];
        Team::new(2).each(&mut parts, |_, part| *part = 1);
        assert_eq!(parts, [1]);
    }
}

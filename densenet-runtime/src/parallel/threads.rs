//! Ranks within a process.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Collective, ParallelError};

/// A rank among several threads of one process. They wait for each other in every call.
pub struct Threads {
    rank: usize,
    shared: Arc<Shared>,
}

struct Shared {
    world_size: usize,
    exchange: Mutex<Exchange>,
    changed: Condvar,
}

/// An exchange in progress.
#[derive(Default)]
struct Exchange {
    /// The values of each rank. f32 values are kept as f64, which is exact.
    brought: Vec<Option<Vec<f64>>>,
    /// How many ranks have read them.
    taken: usize,
    /// How many exchanges are over.
    over: u64,
    /// The first rank that has left.
    gone: Option<usize>,
}

impl Threads {
    /// A group of ranks, one for each thread.
    pub fn group(world_size: usize) -> Vec<Self> {
        let shared = Arc::new(Shared {
            world_size,
            exchange: Mutex::new(Exchange {
                brought: vec![None; world_size],
                ..Exchange::default()
            }),
            changed: Condvar::new(),
        });
        let rank = |rank| Self {
            rank,
            shared: Arc::clone(&shared),
        };
        (0..world_size).map(rank).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Exchange> {
        let exchange = self.shared.exchange.lock();
        exchange.unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, exchange: MutexGuard<'a, Exchange>) -> MutexGuard<'a, Exchange> {
        let changed = self.shared.changed.wait(exchange);
        changed.unwrap_or_else(PoisonError::into_inner)
    }

    /// The values of all ranks, in the order of the ranks.
    fn exchange(&self, own: Vec<f64>) -> Result<Vec<Vec<f64>>, ParallelError> {
        let mut exchange = self.lock();
        let over = exchange.over;
        exchange.brought[self.rank] = Some(own);
        self.shared.changed.notify_all();
        while exchange.brought.iter().any(Option::is_none) {
            if let Some(other) = exchange.gone {
                return Err(ParallelError::Lost {
                    rank: self.rank,
                    other,
                    reason: "its thread has left".into(),
                });
            }
            exchange = self.wait(exchange);
        }
        let all: Vec<_> = exchange.brought.iter().flatten().cloned().collect();
        exchange.taken += 1;
        if exchange.taken == self.shared.world_size {
            exchange.taken = 0;
            exchange.over += 1;
            exchange.brought.fill(None);
            self.shared.changed.notify_all();
        }
        // No rank contributes its next values before all have read these.
        while exchange.over == over {
            exchange = self.wait(exchange);
        }
        drop(exchange);
        for (rank, values) in all.iter().enumerate() {
            if values.len() != all[0].len() {
                return Err(ParallelError::Different {
                    rank,
                    found: values.len(),
                    expected: all[0].len(),
                });
            }
        }
        Ok(all)
    }
}

/// Tells the others, so that they do not wait forever.
impl Drop for Threads {
    fn drop(&mut self) {
        // The first rank that leaves is the reason why others leave.
        self.lock().gone.get_or_insert(self.rank);
        self.shared.changed.notify_all();
    }
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.shared.world_size
    }

    fn sum(&mut self, values: &mut [f64]) -> Result<(), ParallelError> {
        let all = self.exchange(values.to_vec())?;
        for (index, value) in values.iter_mut().enumerate() {
            *value = all.iter().map(|own| own[index]).sum();
        }
        Ok(())
    }

    fn average(&mut self, values: &mut [f32]) -> Result<(), ParallelError> {
        let own = values.iter().map(|&value| f64::from(value)).collect();
        let all = self.exchange(own)?;
        let share = 1.0 / all.len() as f64;
        for (index, value) in values.iter_mut().enumerate() {
            let sum: f64 = all.iter().map(|own| own[index]).sum();
            *value = (sum * share) as f32;
        }
        Ok(())
    }
}

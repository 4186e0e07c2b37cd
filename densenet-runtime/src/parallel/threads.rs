//! Ranks within a process.

use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};

use super::{Collective, ParallelError};

/// A rank of several that are threads of one process. They wait for each other in every call.
pub struct Threads {
    rank: usize,
    shared: Arc<Shared>,
}

struct Shared {
    barrier: Barrier,
    /// What each rank has brought; f32 are f64 meanwhile, which changes none.
    brought: Mutex<Vec<Vec<f64>>>,
}

impl Threads {
    /// A group of ranks, to be given a thread each.
    pub fn group(size: usize) -> Vec<Self> {
        let shared = Arc::new(Shared {
            barrier: Barrier::new(size),
            brought: Mutex::new(vec![Vec::new(); size]),
        });
        let rank = |rank| Self {
            rank,
            shared: Arc::clone(&shared),
        };
        (0..size).map(rank).collect()
    }

    fn brought(&self) -> MutexGuard<'_, Vec<Vec<f64>>> {
        let brought = self.shared.brought.lock();
        brought.unwrap_or_else(PoisonError::into_inner)
    }

    /// What all ranks brought, in their order.
    fn exchange(&self, own: Vec<f64>) -> Result<Vec<Vec<f64>>, ParallelError> {
        self.brought()[self.rank] = own;
        self.shared.barrier.wait();
        let all = self.brought().clone();
        // Nobody brings the next values before all have these.
        self.shared.barrier.wait();
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

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.brought().len()
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

//! Data-parallel training: several processes (or threads), each with a part of every batch.
//!
//! A *rank* has its own executor, the same network and the same settings. In every step it
//! differentiates its part of the batch, and gradients are averaged over all ranks before each
//! descends. So all ranks stay equal, bit for bit, and compute what one rank would compute from the
//! whole batch, except for BN's statistics: each rank normalises its part with that part's mean and
//! variance, as with PyTorch's `DistributedDataParallel` without `SyncBatchNorm`. The running
//! statistics are averaged in every step, too, so that they have seen all images, and evaluations
//! and checkpoints are the same on all ranks.
//!
//! Parts have equal sizes: [`Loader::sharded`](crate::data::Loader::sharded) divides each batch of
//! the epoch's order into one part for each rank. So the average of the ranks' mean losses is the
//! mean over the whole batch, and the same holds for the gradients.
//!
//! - [`Ranks`] is what a program needs. It says which rank this is, from the variables that torchrun
//!   sets, and the loader, the device and the trainer take it.
//! - [`ProcessGroup`] connects the processes over TCP. It is a [`Collective`] for the CPU. It
//!   also introduces the processes of several CUDA devices to each other; NCCL then averages their
//!   gradients on the devices.
//! - [`Threads`] is a collective of threads within one process.
//! - [`Parallel`] makes an executor on the CPU a rank of a collective.
//!
//! A rank that fails ends its own run. The others then report that they lost it.

mod executor;
mod handshake;
mod process_group;
mod ranks;
mod rendezvous;
mod threads;
#[cfg(feature = "cuda")]
mod watch;

use crate::Step;

pub use executor::Parallel;
pub use handshake::Secret;
pub use process_group::ProcessGroup;
pub use ranks::Ranks;
pub use threads::Threads;
#[cfg(feature = "cuda")]
pub(crate) use watch::Watch;

/// Operations over all ranks. All must call the same functions in the same order.
pub trait Collective: Send {
    /// Which rank this is, counted from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn world_size(&self) -> usize;

    /// Replaces values by their sums over all ranks, added in the ranks' order: every rank gets
    /// the same bits.
    ///
    /// # Errors
    /// If another rank was lost, or brings another number of values.
    fn sum(&mut self, values: &mut [f64]) -> Result<(), ParallelError>;

    /// The values of all ranks, one rank's after another's, in the ranks' order. Ranks may have
    /// different numbers of values.
    ///
    /// # Errors
    /// If another rank was lost.
    fn gather(&mut self, own: &[f64]) -> Result<Vec<f64>, ParallelError> {
        let mut counts = vec![0.0; self.world_size()];
        if let Some(count) = counts.get_mut(self.rank()) {
            *count = own.len() as f64;
        }
        self.sum(&mut counts)?;
        let before: f64 = counts.iter().take(self.rank()).sum();
        let all: f64 = counts.iter().sum();
        // Each value is added to zeros, which changes none.
        let mut values = vec![0.0; all as usize];
        let place = before as usize..before as usize + own.len();
        if let Some(place) = values.get_mut(place) {
            place.copy_from_slice(own);
        }
        self.sum(&mut values)?;
        Ok(values)
    }

    /// Replaces values by their averages over all ranks, added in the ranks' order.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    fn average(&mut self, values: &mut [f32]) -> Result<(), ParallelError>;
}

/// Why ranks could not compute together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParallelError {
    /// A variable is not set, though others of its kind are.
    #[error(
        "{missing} is not set, but {set} is; torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for each process"
    )]
    Missing {
        /// The variable.
        missing: &'static str,
        /// One that is set.
        set: &'static str,
    },
    /// A variable has an invalid value.
    #[error("{name} is `{value}`, but must be {expected}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// The ranks did not find each other.
    #[error("rank {rank} of {world_size} {what} {address}: {reason}")]
    Rendezvous {
        /// The rank that reports this.
        rank: usize,
        /// The expected number of ranks.
        world_size: usize,
        /// What it was doing.
        what: &'static str,
        /// Where rank 0 is.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// Another rank was lost.
    #[error("rank {rank} lost rank {other}: {reason}")]
    Lost {
        /// The rank that reports this.
        rank: usize,
        /// The rank that was lost.
        other: usize,
        /// What the system says.
        reason: String,
    },
    /// Ranks have different numbers of values.
    #[error(
        "rank {rank} brought {found} values where rank 0 brought {expected}: all ranks need the same network and settings"
    )]
    Different {
        /// The rank.
        rank: usize,
        /// How many values it has.
        found: usize,
        /// How many values rank 0 has.
        expected: usize,
    },
}

impl From<ParallelError> for crate::ExecutorError {
    fn from(error: ParallelError) -> Self {
        Self::Device(error.into())
    }
}

/// A rank's settings of a step: it drops values of its own.
pub(crate) fn step_of(step: Step, rank: usize) -> Step {
    let own = (rank as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Step {
        seed: step.seed ^ own,
        ..step
    }
}

//! A device that trains with others: gradients are averaged over all ranks, stage by stage.
//!
//! As soon as the backward pass is done with a stage, its gradients are complete, and NCCL
//! averages them on a stream of its own while the next stage is at work. Descent waits for all.
//!
//! ```text
//! main:        backward of head   of block 4      of transition 3  ..   wait for all
//! reductions:                     average head    average block 4  ..
//! ```
//!
//! Without NCCL, a [`Collective`] on the host does the same, and the device waits for it. On an
//! emulated device this shows that each gradient is averaged once, when it is complete.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::driver::{Address, CudaDevice, Event, Lane, Launch, Nccl};
use super::error::CudaError;
use super::target::LaunchTarget;
use crate::ExecutorError;
use crate::parallel::{Collective, ParallelError, ProcessGroup, Watch};

/// Averages a device's gradients with those of the other ranks.
pub(super) struct Reducer {
    /// For numbers that the host needs: losses, counts.
    collective: Mutex<Box<dyn Collective>>,
    nccl: Option<OnDevice>,
}

struct OnDevice {
    nccl: Nccl,
    /// Set when gradients are complete, and when all are averaged.
    complete: Event,
    averaged: Event,
    /// Aborts the averages that the device waits for when another rank is lost. It is dropped last,
    /// because it closes the connections, which the others notice.
    watch: Watch,
}

impl OnDevice {
    /// Averages in the lane for reductions, after the work of the main lane so far.
    fn average(&self, device: &CudaDevice, at: Address, count: usize) -> Result<(), CudaError> {
        device.record(Lane::Main, &self.complete)?;
        device.hold(Lane::Reductions, &self.complete)?;
        self.nccl.average(device, at, count)
    }

    /// Has the main lane wait for all averages.
    fn join(&self, device: &CudaDevice) -> Result<(), CudaError> {
        device.record(Lane::Reductions, &self.averaged)?;
        device.hold(Lane::Main, &self.averaged)
    }
}

impl Drop for OnDevice {
    fn drop(&mut self) {
        self.watch.quiet();
    }
}

impl Reducer {
    /// Averages through the host.
    pub fn by_host(collective: Box<dyn Collective>) -> Self {
        Self {
            collective: Mutex::new(collective),
            nccl: None,
        }
    }

    /// Averages on the devices of a process group. Rank 0 chooses NCCL's id.
    ///
    /// NCCL connects the devices when they first average, in a way that depends on the sizes, and
    /// this cannot be part of a graph. So they average once here, in the sizes of a step: `counts`
    /// of the f32 at `scratch`.
    pub fn by_nccl(
        device: &CudaDevice,
        mut group: ProcessGroup,
        scratch: Address,
        counts: &[usize],
    ) -> Result<Self, CudaError> {
        let (rank, world_size) = (group.rank(), group.world_size());
        Nccl::find()?;
        // NCCL waits without end until all ranks join. One that has failed, or has no NCCL, is noticed here.
        group.sum(&mut [0.0]).map_err(ExecutorError::from)?;
        let mut id = match rank {
            0 => Nccl::id()?,
            _ => [0; super::driver::ID_BYTES],
        };
        let sent = group.broadcast(&mut id);
        sent.map_err(ExecutorError::from)?;
        let nccl = Nccl::join(device, id, rank, world_size)?;
        let watch = group.watch(nccl.abort());
        let own = OnDevice {
            watch: watch.map_err(ExecutorError::from)?,
            nccl,
            complete: device.event()?,
            averaged: device.event()?,
        };
        for &count in counts {
            own.average(device, scratch, count)?;
        }
        own.join(device)?;
        device.wait("averaging with other devices for the first time")?;
        Ok(Self {
            nccl: Some(own),
            collective: Mutex::new(Box::new(group)),
        })
    }

    /// Whether a pass can be recorded once and replayed; it cannot if the host averages.
    pub fn is_recordable(&self) -> bool {
        self.nccl.is_some()
    }

    fn collective(&self) -> MutexGuard<'_, Box<dyn Collective>> {
        let collective = self.collective.lock();
        collective.unwrap_or_else(PoisonError::into_inner)
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.collective().rank()
    }

    /// Adds up host numbers over all ranks.
    pub fn sum(&self, values: &mut [f64]) -> Result<(), ParallelError> {
        self.collective().sum(values)
    }

    /// The host numbers of all ranks, one rank's after another's.
    pub fn gather(&self, own: &[f64]) -> Result<Vec<f64>, ParallelError> {
        self.collective().gather(own)
    }

    /// The average of a host number over all ranks.
    pub fn mean(&self, value: f64) -> Result<f64, ParallelError> {
        let mut values = [value];
        let mut collective = self.collective();
        collective.sum(&mut values)?;
        Ok(values[0] / collective.world_size() as f64)
    }
}

/// A device, alone or with others.
pub(super) struct Member<'a> {
    pub device: &'a CudaDevice,
    pub reducer: Option<&'a Reducer>,
}

impl LaunchTarget for Member<'_> {
    fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        self.device.launch(launch)
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<(), CudaError> {
        self.device.clear(at, bytes)
    }

    fn complete(&self, at: Address, count: usize) -> Result<(), CudaError> {
        let Some(reducer) = self.reducer else {
            return Ok(());
        };
        if let Some(own) = &reducer.nccl {
            let averaged = own.average(self.device, at, count);
            if averaged.is_err() && own.nccl.is_aborted() {
                // NCCL does not know which rank was lost; the connection to it does.
                reducer.mean(0.0).map_err(ExecutorError::from)?;
            }
            return averaged;
        }
        let mut values = vec![0.0f32; count];
        self.device.download(at, &mut values)?;
        let averaged = reducer.collective().average(&mut values);
        averaged.map_err(ExecutorError::from)?;
        self.device.upload(&values, at)
    }

    fn join(&self) -> Result<(), CudaError> {
        match self.reducer.and_then(|reducer| reducer.nccl.as_ref()) {
            Some(own) => own.join(self.device),
            None => Ok(()),
        }
    }
}

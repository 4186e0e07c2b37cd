//! Ranks that are processes, connected over TCP: each is connected to rank 0, which adds up what
//! they send and returns the sums. This is enough for the CPU and for small data; devices use NCCL.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[cfg(feature = "cuda")]
use super::Watch;
use super::{Collective, ParallelError, Ranks, rendezvous};
use crate::tell;

/// How long the processes of a run wait for each other at its start.
const PATIENCE: Duration = Duration::from_secs(300);

/// A process group, as one of its ranks has it.
pub struct ProcessGroup {
    ranks: Ranks,
    /// Connections to rank 0; at rank 0, to all others in the order of their ranks.
    streams: Vec<TcpStream>,
}

impl Ranks {
    /// Forms a process group with the others, if there are any, and reports on standard error that
    /// it waits for them. The trainer does this.
    ///
    /// # Errors
    /// As [`ProcessGroup::join`].
    pub fn process_group(&self) -> Result<Option<ProcessGroup>, ParallelError> {
        if self.is_alone() {
            return Ok(None);
        }
        tell!(
            "rank {} of {} waits for the others at {}:{}, {} s at most",
            self.rank,
            self.world_size,
            self.master,
            self.port,
            PATIENCE.as_secs()
        );
        ProcessGroup::join(self.clone(), PATIENCE).map(Some)
    }
}

impl ProcessGroup {
    /// Waits for all ranks, but no longer than `patience`. A process without the job's
    /// [`secret`](Ranks::secret) cannot join, and delays nobody.
    ///
    /// What the ranks send each other afterwards is neither encrypted nor signed: use it on trusted
    /// networks only.
    ///
    /// # Errors
    /// If some ranks did not join in time (the error names them), when rank 0 cannot be reached
    /// or its port is taken, or when ranks are on several machines and there is no secret.
    pub fn join(ranks: Ranks, patience: Duration) -> Result<Self, ParallelError> {
        let until = Instant::now() + patience;
        let streams = if ranks.rank == 0 {
            rendezvous::receive(&ranks, &rendezvous::listen(&ranks)?, until)?
        } else {
            vec![rendezvous::reach(&ranks, until)?]
        };
        Ok(Self { ranks, streams })
    }

    /// Which rank this is.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// Sends rank 0's bytes to all ranks.
    ///
    /// # Errors
    /// If a rank was lost.
    pub fn broadcast(&mut self, bytes: &mut [u8]) -> Result<(), ParallelError> {
        for index in 0..self.streams.len() {
            let done = if self.ranks.rank == 0 {
                self.streams[index].write_all(bytes)
            } else {
                self.streams[index].read_exact(bytes)
            };
            done.map_err(|error| self.lost(index, &error))?;
        }
        Ok(())
    }

    /// Calls `lost`, once, when another rank is lost while the [`Watch`] lives.
    ///
    /// # Errors
    /// If the system has run out of files or threads.
    #[cfg(feature = "cuda")]
    pub(crate) fn watch(
        &self,
        lost: impl FnOnce() + Send + 'static,
    ) -> Result<Watch, ParallelError> {
        let failed =
            |error: io::Error| rendezvous::failed(&self.ranks, "cannot watch", error.to_string());
        let streams: io::Result<Vec<_>> = self.streams.iter().map(TcpStream::try_clone).collect();
        Watch::over(streams.map_err(failed)?, lost).map_err(failed)
    }

    fn lost(&self, index: usize, error: &io::Error) -> ParallelError {
        ParallelError::Lost {
            rank: self.ranks.rank,
            other: if self.ranks.rank == 0 { index + 1 } else { 0 },
            reason: error.to_string(),
        }
    }

    /// Replaces values by their sums over all ranks, added in the ranks' order, times `share`.
    fn all_reduce<T: Number>(&mut self, values: &mut [T], share: f64) -> Result<(), ParallelError> {
        let mut bytes: Vec<u8> = values.iter().flat_map(|value| value.to_bytes()).collect();
        let count = values.len() as u64;
        if self.ranks.rank > 0 {
            let stream = &mut self.streams[0];
            let sent = stream.write_all(&count.to_le_bytes());
            let sent = sent.and_then(|()| stream.write_all(&bytes));
            sent.map_err(|error| self.lost(0, &error))?;
        } else {
            let mut sums: Vec<f64> = values.iter().map(|&value| value.into()).collect();
            for index in 0..self.streams.len() {
                let mut length = [0; 8];
                let stream = &mut self.streams[index];
                let read = stream.read_exact(&mut length);
                read.map_err(|error| self.lost(index, &error))?;
                let found = u64::from_le_bytes(length);
                if found != count {
                    // The others notice that they lost rank 0.
                    return Err(ParallelError::Different {
                        rank: index + 1,
                        found: found as usize,
                        expected: values.len(),
                    });
                }
                let read = self.streams[index].read_exact(&mut bytes);
                read.map_err(|error| self.lost(index, &error))?;
                for (sum, value) in sums.iter_mut().zip(T::all(&bytes)) {
                    *sum += value.into();
                }
            }
            let results = sums.into_iter().map(|sum| T::nearest(sum * share));
            bytes.clear();
            bytes.extend(results.flat_map(Number::to_bytes));
        }
        self.broadcast(&mut bytes)?;
        for (value, result) in values.iter_mut().zip(T::all(&bytes)) {
            *value = result;
        }
        Ok(())
    }
}

/// A number that is sent over the wire. Sums are f64.
trait Number: Copy + Into<f64> {
    fn nearest(value: f64) -> Self;
    fn to_bytes(self) -> impl Iterator<Item = u8>;
    fn all(bytes: &[u8]) -> impl Iterator<Item = Self>;
}

macro_rules! number {
    ($of:ty) => {
        impl Number for $of {
            fn nearest(value: f64) -> Self {
                value as $of
            }

            fn to_bytes(self) -> impl Iterator<Item = u8> {
                self.to_le_bytes().into_iter()
            }

            fn all(bytes: &[u8]) -> impl Iterator<Item = Self> {
                let (chunks, _) = bytes.as_chunks();
                chunks.iter().map(|&chunk| <$of>::from_le_bytes(chunk))
            }
        }
    };
}

number!(f32);
number!(f64);

impl Collective for ProcessGroup {
    fn rank(&self) -> usize {
        self.ranks.rank
    }

    fn world_size(&self) -> usize {
        self.ranks.world_size
    }

    fn sum(&mut self, values: &mut [f64]) -> Result<(), ParallelError> {
        self.all_reduce(values, 1.0)
    }

    fn average(&mut self, values: &mut [f32]) -> Result<(), ParallelError> {
        self.all_reduce(values, 1.0 / self.ranks.world_size as f64)
    }
}

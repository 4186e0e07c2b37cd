//! Ranks that are processes, brought together over TCP: all are connected to rank 0, which adds
//! up what they bring and sends it back. Enough for the CPU and for small things; devices have
//! their own ways.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

#[cfg(feature = "cuda")]
use super::Watch;
use super::{Collective, ParallelError, Place};

/// Says that who connects is one of us.
const GREETING: [u8; 8] = *b"densenet";
/// Between tries to reach rank 0, and to hear from others.
const PAUSE: Duration = Duration::from_millis(20);

/// A rank of several processes.
pub struct Meeting {
    place: Place,
    /// To rank 0; at rank 0 to all others, in their order.
    streams: Vec<TcpStream>,
}

impl Meeting {
    /// Waits for all ranks, but no longer than `patience`.
    ///
    /// # Errors
    /// When not all ranks came in time, with which are missing; when rank 0 cannot be reached, or
    /// its port is taken.
    pub fn join(place: Place, patience: Duration) -> Result<Self, ParallelError> {
        let until = Instant::now() + patience;
        let streams = if place.rank == 0 {
            let port = place.port;
            let listener = TcpListener::bind(("0.0.0.0", port))
                .map_err(|error| meeting(&place, "cannot listen at", error.to_string()))?;
            receive(&place, &listener, until)?
        } else {
            vec![reach(&place, until)?]
        };
        Ok(Self { place, streams })
    }

    /// Who this is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Gives all ranks the bytes of rank 0.
    ///
    /// # Errors
    /// When a rank has gone.
    pub fn tell(&mut self, bytes: &mut [u8]) -> Result<(), ParallelError> {
        for index in 0..self.streams.len() {
            let done = if self.place.rank == 0 {
                self.streams[index].write_all(bytes)
            } else {
                self.streams[index].read_exact(bytes)
            };
            done.map_err(|error| self.lost(index, &error))?;
        }
        Ok(())
    }

    /// Calls `lost`, once, when another rank has gone while this is watched.
    ///
    /// # Errors
    /// When the system has no more files or threads.
    #[cfg(feature = "cuda")]
    pub(crate) fn watch(
        &self,
        lost: impl FnOnce() + Send + 'static,
    ) -> Result<Watch, ParallelError> {
        let failed = |error: io::Error| meeting(&self.place, "cannot watch", error.to_string());
        let streams: io::Result<Vec<_>> = self.streams.iter().map(TcpStream::try_clone).collect();
        Watch::over(streams.map_err(failed)?, lost).map_err(failed)
    }

    fn lost(&self, index: usize, error: &io::Error) -> ParallelError {
        ParallelError::Lost {
            rank: self.place.rank,
            other: if self.place.rank == 0 { index + 1 } else { 0 },
            reason: error.to_string(),
        }
    }

    /// Replaces values by their sums over all ranks, added in the ranks' order, times `share`.
    fn gather<T: Number>(&mut self, values: &mut [T], share: f64) -> Result<(), ParallelError> {
        let mut bytes: Vec<u8> = values.iter().flat_map(|value| value.to_bytes()).collect();
        let count = values.len() as u64;
        if self.place.rank > 0 {
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
                    // The others hear of it by losing rank 0.
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
        self.tell(&mut bytes)?;
        for (value, result) in values.iter_mut().zip(T::all(&bytes)) {
            *value = result;
        }
        Ok(())
    }
}

/// A number as it goes over the wire; sums are made in f64.
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

impl Collective for Meeting {
    fn rank(&self) -> usize {
        self.place.rank
    }

    fn size(&self) -> usize {
        self.place.size
    }

    fn sum(&mut self, values: &mut [f64]) -> Result<(), ParallelError> {
        self.gather(values, 1.0)
    }

    fn average(&mut self, values: &mut [f32]) -> Result<(), ParallelError> {
        self.gather(values, 1.0 / self.place.size as f64)
    }
}

fn meeting(place: &Place, what: &'static str, reason: String) -> ParallelError {
    ParallelError::Meeting {
        rank: place.rank,
        size: place.size,
        what,
        address: format!("{}:{}", place.master, place.port),
        reason,
    }
}

/// Rank 0's part: takes the others in.
fn receive(
    place: &Place,
    listener: &TcpListener,
    until: Instant,
) -> Result<Vec<TcpStream>, ParallelError> {
    let failed = |error: io::Error| meeting(place, "cannot listen at", error.to_string());
    listener.set_nonblocking(true).map_err(failed)?;
    let mut streams: Vec<Option<TcpStream>> = (1..place.size).map(|_| None).collect();
    while streams.iter().any(Option::is_none) {
        if Instant::now() >= until {
            let ranks = (1..).zip(&streams);
            let missing = ranks.filter(|(_, stream)| stream.is_none());
            let missing: Vec<_> = missing.map(|(rank, _)| rank.to_string()).collect();
            let reason = format!("not here in time: {}", missing.join(", "));
            return Err(meeting(place, "waited for the other ranks at", reason));
        }
        match listener.accept() {
            Ok((stream, _)) => {
                // Whoever does not greet as one of us, in time, is not: somebody else's scan.
                if let Ok((rank, size, stream)) = greeted(stream, until) {
                    if size != place.size || rank == 0 || rank >= size {
                        let reason = format!("a process says that it is rank {rank} of {size}");
                        return Err(meeting(place, "met another world at", reason));
                    }
                    if streams[rank - 1].replace(stream).is_some() {
                        let reason = format!("two processes say that they are rank {rank}");
                        return Err(meeting(place, "met a double at", reason));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) => return Err(failed(error)),
        }
    }
    let streams: Vec<_> = streams.into_iter().flatten().collect();
    for mut stream in &streams {
        stream.write_all(&GREETING).map_err(failed)?;
    }
    Ok(streams)
}

fn greeted(mut stream: TcpStream, until: Instant) -> io::Result<(usize, usize, TcpStream)> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let left = until.saturating_duration_since(Instant::now());
    stream.set_read_timeout(Some(left.max(PAUSE)))?;
    let mut words = [[0; 8]; 3];
    stream.read_exact(words.as_flattened_mut())?;
    if words[0] != GREETING {
        return Err(io::ErrorKind::InvalidData.into());
    }
    stream.set_read_timeout(None)?;
    let number = |word| u64::from_le_bytes(word) as usize;
    Ok((number(words[1]), number(words[2]), stream))
}

/// Another rank's part: reaches rank 0, which may start later.
fn reach(place: &Place, until: Instant) -> Result<TcpStream, ParallelError> {
    let words = [
        GREETING,
        (place.rank as u64).to_le_bytes(),
        (place.size as u64).to_le_bytes(),
    ];
    let attempt = || {
        let addresses = (place.master.as_str(), place.port).to_socket_addrs()?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            let left = until.saturating_duration_since(Instant::now()).max(PAUSE);
            match TcpStream::connect_timeout(&address, left) {
                Ok(mut stream) => {
                    stream.set_nodelay(true)?;
                    stream.write_all(words.as_flattened())?;
                    // Rank 0 answers when all are there.
                    let left = until.saturating_duration_since(Instant::now()).max(PAUSE);
                    stream.set_read_timeout(Some(left))?;
                    let mut answer = [0; 8];
                    stream.read_exact(&mut answer)?;
                    stream.set_read_timeout(None)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    loop {
        match attempt() {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= until => {
                return Err(meeting(place, "cannot reach rank 0 at", error.to_string()));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

//! How batches come in and outcomes go out while the device computes.
//!
//! There are two of all the buffers that a batch passes through, used in turn: pinned memory, from
//! which a stream of its own copies pixels to the device while the step before is computed, and
//! pinned memory to which the outcome is copied after the step. The host waits only where it comes
//! round to buffers whose batch is not done, so it can prefetch two batches. A batch that is done
//! has taken over its pixels, so the next copy waits for nothing.
//!
//! ```text
//! uploads:  copy pixels of step n + 1
//! main:     step n ..   wait for the copy, images to NHWC, step n + 1, copy outcome
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use super::driver::{Address, CudaDevice, Lane, Pinned};
use super::error::CudaError;
use super::program::{DESCENT_WORDS, STEP_WORDS};
use crate::executor::{Outcome, Pixels};

/// The most outcomes that are kept until they are asked for; older ones are dropped.
const MOST_OUTCOMES: usize = 1024;

/// The pinned memory that a batch passes through.
struct Staging {
    pixels: Pinned,
    /// Labels, scalars of the step, normalisation of the pixels.
    words: Pinned,
    /// Loss, top 1 and top 5 of each image.
    results: Pinned,
    /// The batch whose results are being copied, and its number of images.
    waiting: Option<(u64, usize)>,
}

/// Batches on their way in, outcomes on their way out.
pub(super) struct Feed {
    staging: [Staging; 2],
    /// Scalars of the descent, used in turn.
    descents: [Pinned; 2],
    /// The number of the latest batch. Numbers of different feeds never overlap.
    batches: u64,
    /// How many descents were started.
    steps: usize,
    outcomes: VecDeque<(u64, Outcome)>,
}

/// Where a batch goes on the device.
pub(super) struct Destination {
    /// Raw pixels, for each staging buffer.
    pub raw: [Address; 2],
    pub labels: Address,
    pub scalars: Address,
    pub norm: Address,
}

impl Feed {
    pub fn new(device: &CudaDevice, batch: usize, channels: usize) -> Result<Self, CudaError> {
        static FEEDS: AtomicU64 = AtomicU64::new(0);
        let staging = || -> Result<Staging, CudaError> {
            Ok(Staging {
                // Grows with the first batch: a value has one byte or four.
                pixels: device.pinned(1)?,
                words: device.pinned(4 * (batch + STEP_WORDS + DESCENT_WORDS + 2 * channels))?,
                results: device.pinned(24 * batch)?,
                waiting: None,
            })
        };
        let words = || device.pinned(4 * DESCENT_WORDS);
        Ok(Self {
            staging: [staging()?, staging()?],
            descents: [words()?, words()?],
            batches: FEEDS.fetch_add(1, Ordering::Relaxed) << 40,
            steps: 0,
            outcomes: VecDeque::new(),
        })
    }

    /// Which staging buffers the current batch uses.
    pub fn turn(&self) -> usize {
        (self.batches % 2) as usize
    }

    /// Starts copying a batch: its pixels in the stream for uploads, which the main stream then
    /// waits for, and the small rest in the main stream itself. `scalars` are the first words of
    /// the kernels' `Scalars`: none, those of a step, or those of a step with its descent.
    pub fn send(
        &mut self,
        device: &CudaDevice,
        pixels: Pixels<'_>,
        labels: &[u32],
        scalars: &[u32],
        into: &Destination,
    ) -> Result<(), CudaError> {
        self.batches += 1;
        let turn = self.turn();
        self.collect(turn)?;
        let staging = &mut self.staging[turn];
        let (mean, std): (&[f32], &[f32]) = match pixels {
            Pixels::Nchw(_) => (&[], &[]),
            Pixels::Nhwc { mean, std, .. } => (mean, std),
        };
        let bytes = match pixels {
            Pixels::Nchw(values) => 4 * values.len(),
            Pixels::Nhwc { bytes, .. } => bytes.len(),
        };
        if staging.pixels.len() < bytes {
            staging.pixels = device.pinned(bytes)?;
        }
        match pixels {
            Pixels::Nchw(values) => staging.pixels.values(values.len())?.copy_from_slice(values),
            Pixels::Nhwc { bytes, .. } => {
                staging.pixels.values(bytes.len())?.copy_from_slice(bytes);
            }
        }
        device.copy_in(Lane::Uploads, &mut staging.pixels, 0..bytes, into.raw[turn])?;

        let norm = mean.iter().chain(std).map(|value| value.to_bits());
        let words = labels.iter().copied();
        let words = words.chain(scalars.iter().copied()).chain(norm);
        let count = labels.len() + scalars.len() + 2 * mean.len();
        for (into, word) in staging.words.values::<u32>(count)?.iter_mut().zip(words) {
            *into = word;
        }
        let (scalars_at, norm_at) = (4 * labels.len(), 4 * (labels.len() + scalars.len()));
        let mut send = |range, into| device.copy_in(Lane::Main, &mut staging.words, range, into);
        send(0..scalars_at, into.labels)?;
        if !scalars.is_empty() {
            send(scalars_at..norm_at, into.scalars)?;
        }
        if !mean.is_empty() {
            send(norm_at..4 * count, into.norm)?;
        }
        device.hold_for_copy(Lane::Main, &staging.pixels)
    }

    /// Has the results of the current batch copied out; returns the number to ask for them with.
    pub fn expect(
        &mut self,
        device: &CudaDevice,
        results: Address,
        images: usize,
    ) -> Result<u64, CudaError> {
        let turn = self.turn();
        let staging = &mut self.staging[turn];
        device.copy_out(results, 24 * images, &mut staging.results)?;
        staging.waiting = Some((self.batches, images));
        Ok(self.batches)
    }

    /// Has the scalars of a descent copied in.
    pub fn descent(
        &mut self,
        device: &CudaDevice,
        words: [u32; DESCENT_WORDS],
        into: Address,
    ) -> Result<(), CudaError> {
        self.steps += 1;
        let pinned = &mut self.descents[self.steps % 2];
        pinned.values(DESCENT_WORDS)?.copy_from_slice(&words);
        device.copy_in(Lane::Main, pinned, 0..4 * DESCENT_WORDS, into)
    }

    /// Waits for the results that are being copied to one of them.
    fn collect(&mut self, turn: usize) -> Result<(), CudaError> {
        let staging = &mut self.staging[turn];
        let Some((number, images)) = staging.waiting.take() else {
            return Ok(());
        };
        let mut outcome = Outcome::default();
        for image in staging.results.values::<f64>(3 * images)?.chunks_exact(3) {
            outcome.loss += image[0];
            outcome.top1 += usize::from(image[1] > 0.0);
            outcome.top5 += usize::from(image[2] > 0.0);
        }
        if self.outcomes.len() == MOST_OUTCOMES {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back((number, outcome));
        Ok(())
    }

    /// Waits for the outcome of a batch; `None` if it was asked for before.
    pub fn outcome(&mut self, number: u64) -> Result<Option<Outcome>, CudaError> {
        for turn in 0..2 {
            if self.staging[turn]
                .waiting
                .is_some_and(|(own, _)| own == number)
            {
                self.collect(turn)?;
            }
        }
        let at = self.outcomes.iter().position(|&(own, _)| own == number);
        Ok(at
            .and_then(|at| self.outcomes.remove(at))
            .map(|(_, outcome)| outcome))
    }
}

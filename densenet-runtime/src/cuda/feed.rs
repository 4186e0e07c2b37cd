//! Copies batches in and outcomes out while the device computes.
//!
//! Each buffer that a batch passes through exists twice, and the two are used in turn: pinned
//! memory from which a separate stream copies pixels to the device while the previous step
//! computes, and pinned memory to which the outcome is copied after the step. The host waits only
//! if it needs buffers whose batch is not done, so it can prefetch two batches. A finished batch no
//! longer needs its pixels, so the next copy waits for nothing.
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
use crate::executor::{Outcome, Pixels, Targets};

/// The most outcomes that are kept until they are asked for; older ones are dropped. Those of two steps may
/// wait, each of as many pieces as images.
const MOST_OUTCOMES: usize = 1 << 18;

/// The pinned memory that a batch passes through.
struct Staging {
    pixels: Pinned,
    /// Targets, the divisor of the loss, scalars of the step, normalisation of the pixels.
    words: Pinned,
    /// The loss of each image and two counts (`head.cu`).
    results: Pinned,
    /// The batch whose results are being copied.
    waiting: Option<Waiting>,
}

/// A batch whose results are being copied.
#[derive(Clone, Copy)]
struct Waiting {
    number: u64,
    images: usize,
    weight: f64,
    /// Whether its targets are independent: what the counts count.
    independent: bool,
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
    /// What the loss is divided by.
    pub divisor: Address,
    pub labels: Address,
    /// Targets of each class.
    pub targets: Address,
    pub scalars: Address,
    pub norm: Address,
}

/// What a batch's logits are judged by.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub targets: Targets<'a>,
    /// What the loss is a mean over.
    pub weight: f64,
}

/// Has a lane copy pixels to the device through pinned memory, which has room for them.
pub(super) fn send_pixels(
    device: &CudaDevice,
    lane: Lane,
    pixels: Pixels<'_>,
    through: &mut Pinned,
    into: Address,
) -> Result<(), CudaError> {
    let bytes = match pixels {
        Pixels::Nchw(values) | Pixels::NhwcFloats { values, .. } => {
            through.values(values.len())?.copy_from_slice(values);
            4 * values.len()
        }
        Pixels::Nhwc { bytes, .. } => {
            through.values(bytes.len())?.copy_from_slice(bytes);
            bytes.len()
        }
    };
    device.copy_in(lane, through, 0..bytes, into)
}

impl Feed {
    pub fn new(device: &CudaDevice, batch: usize, channels: usize) -> Result<Self, CudaError> {
        static FEEDS: AtomicU64 = AtomicU64::new(0);
        let staging = || -> Result<Staging, CudaError> {
            Ok(Staging {
                // Grows with the first batch: a value has one byte or four.
                pixels: device.pinned(1)?,
                // Grows with the first batch that has targets of each class.
                words: device
                    .pinned(4 * (batch + 1 + STEP_WORDS + DESCENT_WORDS + 2 * channels))?,
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
    /// waits for, and everything else in the main stream itself. `scalars` are the first words of
    /// the kernels' `Scalars`: nothing, those of a step, or those of a step with its descent.
    pub fn send(
        &mut self,
        device: &CudaDevice,
        pixels: Pixels<'_>,
        wanted: Wanted<'_>,
        scalars: &[u32],
        into: &Destination,
    ) -> Result<(), CudaError> {
        self.batches += 1;
        let turn = self.turn();
        self.collect(turn)?;
        let staging = &mut self.staging[turn];
        let (mean, std) = pixels.norm().unwrap_or_default();
        let bytes = match pixels {
            Pixels::Nhwc { bytes, .. } => bytes.len(),
            Pixels::Nchw(values) | Pixels::NhwcFloats { values, .. } => 4 * values.len(),
        };
        if staging.pixels.len() < bytes {
            staging.pixels = device.pinned(bytes)?;
        }
        send_pixels(
            device,
            Lane::Uploads,
            pixels,
            &mut staging.pixels,
            into.raw[turn],
        )?;

        let norm = mean.iter().chain(std).map(|value| value.to_bits());
        let (labels, values): (&[u32], &[f32]) = match wanted.targets {
            Targets::Classes(labels) => (labels, &[]),
            Targets::Probabilities(values) | Targets::Independent(values) => (&[], values),
        };
        let targets = labels.len() + values.len();
        let words = labels.iter().copied();
        let words = words.chain(values.iter().map(|value| value.to_bits()));
        let words = words.chain([(wanted.weight as f32).to_bits()]);
        let words = words.chain(scalars.iter().copied()).chain(norm);
        let count = targets + 1 + scalars.len() + 2 * mean.len();
        if staging.words.len() < 4 * count {
            staging.words = device.pinned(4 * count)?;
        }
        for (into, word) in staging.words.values::<u32>(count)?.iter_mut().zip(words) {
            *into = word;
        }
        let (divisor_at, scalars_at) = (4 * targets, 4 * (targets + 1));
        let norm_at = scalars_at + 4 * scalars.len();
        let mut send = |range, into| device.copy_in(Lane::Main, &mut staging.words, range, into);
        let is_of_classes = matches!(wanted.targets, Targets::Classes(_));
        send(
            0..divisor_at,
            if is_of_classes {
                into.labels
            } else {
                into.targets
            },
        )?;
        send(divisor_at..scalars_at, into.divisor)?;
        if !scalars.is_empty() {
            send(scalars_at..norm_at, into.scalars)?;
        }
        if !mean.is_empty() {
            send(norm_at..4 * count, into.norm)?;
        }
        device.hold_for_copy(Lane::Main, &staging.pixels)
    }

    /// Has the results of the current batch copied out, and returns the number that identifies them.
    pub fn expect(
        &mut self,
        device: &CudaDevice,
        results: Address,
        images: usize,
        wanted: Wanted<'_>,
    ) -> Result<u64, CudaError> {
        let turn = self.turn();
        let staging = &mut self.staging[turn];
        device.copy_out(results, &mut staging.results, 0..24 * images)?;
        staging.waiting = Some(Waiting {
            number: self.batches,
            images,
            weight: wanted.weight,
            independent: matches!(wanted.targets, Targets::Independent(_)),
        });
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

    /// Waits for the results that are being copied to one of the two buffers.
    fn collect(&mut self, turn: usize) -> Result<(), CudaError> {
        let staging = &mut self.staging[turn];
        let Some(batch) = staging.waiting.take() else {
            return Ok(());
        };
        let mut outcome = Outcome {
            weight: batch.weight,
            ..Outcome::default()
        };
        let counts = match batch.independent {
            true => [&mut outcome.right, &mut outcome.known],
            false => [&mut outcome.top1, &mut outcome.top5],
        };
        let results = staging.results.values::<f64>(3 * batch.images)?;
        for image in results.chunks_exact(3) {
            outcome.loss += image[0];
            *counts[0] += image[1] as usize;
            *counts[1] += image[2] as usize;
        }
        if self.outcomes.len() == MOST_OUTCOMES {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back((batch.number, outcome));
        Ok(())
    }

    /// Waits for the outcome of a batch; `None` if it was asked for before.
    pub fn outcome(&mut self, number: u64) -> Result<Option<Outcome>, CudaError> {
        for turn in 0..2 {
            if self.staging[turn]
                .waiting
                .is_some_and(|batch| batch.number == number)
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

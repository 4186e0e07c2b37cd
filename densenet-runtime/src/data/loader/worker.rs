//! The work of a loader's threads.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use crossbeam_channel::Receiver;

use super::{OnBroken, Reports, order::Order};
use crate::data::{DataError, Dataset, decode::message_of};

/// How many replacements for a broken image are tried before all are taken to be broken.
const REPLACEMENTS: usize = 32;

/// What the workers of an epoch share.
pub(super) struct Shared {
    pub(super) dataset: Arc<dyn Dataset>,
    pub(super) order: Order,
    pub(super) on_broken: OnBroken,
    pub(super) reports: Arc<Reports>,
    /// Size of an image with all its views, in bytes.
    pub(super) image_bytes: usize,
    /// Set when nobody is waiting for batches any more.
    pub(super) stop: AtomicBool,
}

/// A batch that is being assembled.
pub(super) struct Assembly {
    pub(super) number: usize,
    pub(super) positions: Range<usize>,
    state: Mutex<State>,
}

struct State {
    bytes: Vec<u8>,
    /// Which image was copied in at each place so far.
    images: Vec<Option<usize>>,
    missing: usize,
    /// The first error in the batch's order, whichever worker finished first.
    failure: Option<(usize, DataError)>,
}

/// Some of a batch's images.
pub(super) struct Task {
    pub(super) assembly: Arc<Assembly>,
    pub(super) positions: Range<usize>,
}

/// A complete batch, without the images that were skipped.
pub(super) struct Assembled {
    pub(super) number: usize,
    /// The bytes, and the images that they are of.
    pub(super) outcome: Result<(Vec<u8>, Vec<usize>), DataError>,
}

impl Assembly {
    /// An empty batch. `bytes` is as long as its images together.
    pub(super) fn new(number: usize, positions: Range<usize>, bytes: Vec<u8>) -> Self {
        let size = positions.len();
        Self {
            number,
            positions,
            state: Mutex::new(State {
                bytes,
                images: vec![None; size],
                missing: size,
                failure: None,
            }),
        }
    }

    /// Copies images in; `loaded` holds the result of each, `bytes` their bytes. Returns the batch
    /// if they were the last.
    fn add(
        &self,
        positions: Range<usize>,
        loaded: &mut Vec<Result<Option<usize>, DataError>>,
        bytes: &[u8],
        image_bytes: usize,
    ) -> Option<Assembled> {
        let first = positions.start - self.positions.start;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes[first * image_bytes..][..bytes.len()].copy_from_slice(bytes);
        state.missing -= positions.len();
        for (place, loaded) in (first..).zip(loaded.drain(..)) {
            match loaded {
                Ok(image) => state.images[place] = image,
                Err(error) if state.failure.as_ref().is_none_or(|&(p, _)| place < p) => {
                    state.failure = Some((place, error));
                }
                Err(_) => {}
            }
        }
        (state.missing == 0).then(|| Assembled {
            number: self.number,
            outcome: state.finish(image_bytes),
        })
    }
}

impl State {
    fn finish(&mut self, image_bytes: usize) -> Result<(Vec<u8>, Vec<usize>), DataError> {
        if let Some((_, error)) = self.failure.take() {
            return Err(error);
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        let mut images = Vec::with_capacity(self.images.len());
        for (place, image) in self.images.iter().enumerate() {
            let Some(image) = image else { continue };
            if images.len() < place {
                let from = place * image_bytes;
                bytes.copy_within(from..from + image_bytes, images.len() * image_bytes);
            }
            images.push(*image);
        }
        bytes.truncate(images.len() * image_bytes);
        Ok((bytes, images))
    }
}

/// Loads images until there are no more tasks or nobody is waiting.
pub(super) fn work(shared: &Shared, tasks: &Receiver<Task>, done: &mpsc::Sender<Assembled>) {
    let mut bytes = Vec::new();
    let mut loaded = Vec::new();
    for task in tasks {
        bytes.resize(task.positions.len() * shared.image_bytes, 0);
        for (position, into) in task
            .positions
            .clone()
            .zip(bytes.chunks_exact_mut(shared.image_bytes))
        {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            loaded.push(shared.load(position, into));
        }
        let assembled = task.assembly.add(
            task.positions.clone(),
            &mut loaded,
            &bytes,
            shared.image_bytes,
        );
        if let Some(assembled) = assembled
            && done.send(assembled).is_err()
        {
            return;
        }
    }
}

impl Shared {
    /// Loads the image of a position, or another in its place, and returns which; `None` if it is
    /// skipped. A panic becomes an error.
    fn load(&self, position: usize, into: &mut [u8]) -> Result<Option<usize>, DataError> {
        let image = self.order.image(position);
        // After a panic only the bytes are half done, and those are not served.
        catch_unwind(AssertUnwindSafe(|| self.load_or_replace(image, into))).unwrap_or_else(
            |panic| {
                Err(DataError::Panic {
                    index: image,
                    message: message_of(&*panic),
                })
            },
        )
    }

    fn load_or_replace(&self, image: usize, into: &mut [u8]) -> Result<Option<usize>, DataError> {
        let mut rng = self.order.rng(image);
        let mut candidate = image;
        let mut tried = 0;
        loop {
            let error = match self.dataset.load(candidate, rng.as_mut(), into) {
                Ok(()) => return Ok(Some(candidate)),
                Err(error) => error,
            };
            if self.on_broken == OnBroken::Fail || !error.is_about_one_image() {
                return Err(error);
            }
            self.reports.add(candidate, &error);
            // Without random numbers this is evaluation, in which nothing replaces the image.
            let Some(rng) = rng.as_mut() else {
                return Ok(None);
            };
            tried += 1;
            if tried > REPLACEMENTS {
                return Err(DataError::AllBroken {
                    tried,
                    last: Box::new(error),
                });
            }
            candidate = rng.below(self.dataset.len());
        }
    }
}

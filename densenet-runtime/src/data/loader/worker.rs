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

use super::{LoadedPixels, Mix, OnBroken, Reports, mix::Mixing, order::Order};
use crate::data::{DataError, Dataset, Depth, Rng, decode::message_of};

/// The number of replacements for a broken image that are tried before all are taken to be broken.
const REPLACEMENTS: usize = 32;

/// What the workers of an epoch share.
pub(super) struct Shared {
    pub(super) dataset: Arc<dyn Dataset>,
    pub(super) order: Order,
    pub(super) on_broken: OnBroken,
    pub(super) reports: Arc<Reports>,
    /// The format of images, and the number of bytes or floats of one with all its views.
    pub(super) depth: Depth,
    pub(super) image_length: usize,
    pub(super) mix: Mix,
    /// Set when nobody is waiting for batches any more.
    pub(super) stop: AtomicBool,
}

/// A batch that is being assembled.
pub(super) struct Assembly {
    pub(super) number: usize,
    pub(super) positions: Range<usize>,
    state: Mutex<PartialBatch>,
}

struct PartialBatch {
    pixels: LoadedPixels,
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
    pub(super) outcome: Result<Whole, DataError>,
}

/// The pixels of a batch, the images that they are of, and how these were mixed.
pub(super) struct Whole {
    pub(super) pixels: LoadedPixels,
    pub(super) images: Vec<usize>,
    pub(super) mixing: Option<Mixing>,
}

impl Assembly {
    /// An empty batch. `pixels` is as long as its images together.
    pub(super) fn new(number: usize, positions: Range<usize>, pixels: LoadedPixels) -> Self {
        let size = positions.len();
        Self {
            number,
            positions,
            state: Mutex::new(PartialBatch {
                pixels,
                images: vec![None; size],
                missing: size,
                failure: None,
            }),
        }
    }

    /// Copies images in; `loaded` holds the result of each. Returns the batch if they were the last.
    fn add(
        &self,
        positions: Range<usize>,
        loaded: &mut Vec<Result<Option<usize>, DataError>>,
        pixels: &LoadedPixels,
        shared: &Shared,
    ) -> Option<Assembled> {
        let first = positions.start - self.positions.start;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.pixels.put(first * shared.image_length, pixels);
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
            outcome: state.finish(shared, self.number),
        })
    }
}

impl PartialBatch {
    fn finish(&mut self, shared: &Shared, number: usize) -> Result<Whole, DataError> {
        if let Some((_, error)) = self.failure.take() {
            return Err(error);
        }
        let length = shared.image_length;
        let nothing = LoadedPixels::none(shared.depth);
        let mut pixels = std::mem::replace(&mut self.pixels, nothing);
        let mut images = Vec::with_capacity(self.images.len());
        for (place, image) in self.images.iter().enumerate() {
            let Some(image) = image else { continue };
            if images.len() < place {
                let from = place * length;
                pixels.copy_within(from..from + length, images.len() * length);
            }
            images.push(*image);
        }
        pixels.truncate(images.len() * length);
        let mixing = (!shared.mix.is_none())
            .then(|| shared.order.batch_rng(number))
            .flatten()
            .map(|mut rng| {
                let shape = shared.dataset.shape();
                let mixing = shared.mix.draw(&mut rng, [shape[1], shape[2]]);
                mixing.apply(&mut pixels, shape);
                mixing
            });
        Ok(Whole {
            pixels,
            images,
            mixing,
        })
    }
}

/// Loads images until there are no more tasks or nobody is waiting.
pub(super) fn work(shared: &Shared, tasks: &Receiver<Task>, done: &mpsc::Sender<Assembled>) {
    let mut pixels = LoadedPixels::none(shared.depth);
    let mut loaded = Vec::new();
    for task in tasks {
        let length = shared.image_length;
        pixels.resize(task.positions.len() * length);
        for (place, position) in task.positions.clone().enumerate() {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            let at = place * length..(place + 1) * length;
            loaded.push(shared.load(position, &mut pixels, at));
        }
        let positions = task.positions.clone();
        let assembled = task.assembly.add(positions, &mut loaded, &pixels, shared);
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
    fn load(
        &self,
        position: usize,
        pixels: &mut LoadedPixels,
        at: Range<usize>,
    ) -> Result<Option<usize>, DataError> {
        let image = self.order.image(position);
        // After a panic only the pixels are half done, and those are not served.
        let rng = self.order.rng(position);
        let loaded = AssertUnwindSafe(|| self.load_or_replace(image, rng, pixels, at));
        catch_unwind(loaded).unwrap_or_else(|panic| {
            Err(DataError::Panic {
                index: image,
                message: message_of(&*panic),
            })
        })
    }

    fn load_or_replace(
        &self,
        image: usize,
        mut rng: Option<Rng>,
        pixels: &mut LoadedPixels,
        at: Range<usize>,
    ) -> Result<Option<usize>, DataError> {
        let mut candidate = image;
        let mut tried = 0;
        loop {
            let (dataset, at) = (&*self.dataset, at.clone());
            let error = match pixels.load(dataset, candidate, rng.as_mut(), at) {
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

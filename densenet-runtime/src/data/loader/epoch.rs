//! The batches of an epoch, one after another.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use crossbeam_channel::Sender;

use super::{
    LoadedBatch, LoadedTargets, Loader,
    batch::Recycled,
    order::Order,
    worker::{Assembled, Assembly, Shared, Task, Whole, work},
};
use crate::data::{DataError, Depth};

/// Workers get images in pieces of about this many bytes: small images together, so that
/// distributing them costs little; large ones alone, so that all workers share a batch.
const PIECE: usize = 1 << 16;

/// Iterates over the batches of an epoch, in order, while threads load the next ones.
///
/// An error ends it. Dropping it stops its threads, each after the image at hand.
pub struct Epoch {
    shared: Arc<Shared>,
    buffers: Arc<Recycled>,
    workers: Vec<JoinHandle<()>>,
    /// `None` when there is nothing left to load.
    tasks: Option<Sender<Task>>,
    done: mpsc::Receiver<Assembled>,
    /// Batches that came before their turn.
    early: BTreeMap<usize, Assembled>,
    views: usize,
    /// Classes of the probabilities that mixed images have.
    classes: usize,
    piece: usize,
    prefetch: usize,
    /// The index of the next batch to serve.
    next: usize,
    /// The index of the next batch to distribute.
    handed_out: usize,
    /// The error that ends the epoch.
    failure: Option<DataError>,
}

impl Epoch {
    pub(super) fn start(loader: &Loader, order: Order, first: usize) -> Self {
        let views = if loader.training {
            1
        } else {
            loader.dataset.views()
        };
        let image_length = views * loader.dataset.shape().iter().product::<usize>();
        let depth = loader.depth();
        let image_bytes = match depth {
            Depth::Bytes => image_length,
            Depth::Floats => 4 * image_length,
        };
        let share = loader.batch.div_ceil(loader.workers);
        let shared = Arc::new(Shared {
            dataset: Arc::clone(&loader.dataset),
            order,
            on_broken: loader.on_broken,
            reports: Arc::clone(&loader.reports),
            depth,
            image_length,
            mix: loader.mix,
            stop: AtomicBool::new(false),
        });
        let (tasks, queue) = crossbeam_channel::unbounded();
        let (assembled, done) = mpsc::channel();
        let mut workers = Vec::with_capacity(loader.workers);
        let mut failure = loader.refusal();
        for number in 0..loader.workers {
            let (shared, queue, assembled) =
                (Arc::clone(&shared), queue.clone(), assembled.clone());
            let spawned = thread::Builder::new()
                .name(format!("loader {number}"))
                .spawn(move || work(&shared, &queue, &assembled));
            match spawned {
                Ok(worker) => workers.push(worker),
                // One worker is enough, though slow.
                Err(_) if number > 0 => break,
                Err(source) => {
                    failure = Some(DataError::io("start", "a thread to load images")(source));
                }
            }
        }
        let mut epoch = Self {
            shared,
            buffers: Arc::clone(&loader.buffers),
            workers,
            tasks: Some(tasks),
            done,
            early: BTreeMap::new(),
            views,
            classes: loader.classes,
            piece: (PIECE / image_bytes.max(1)).clamp(1, share),
            prefetch: loader.prefetch,
            next: first,
            handed_out: first,
            failure,
        };
        if epoch.failure.is_none() {
            epoch.hand_out();
        }
        epoch
    }

    /// Keeps the workers supplied, but no further ahead than the prefetch depth.
    fn hand_out(&mut self) {
        let Some(tasks) = &self.tasks else { return };
        while self.handed_out < self.next.saturating_add(self.prefetch) {
            let positions = self.shared.order.positions(self.handed_out);
            if positions.is_empty() {
                // Workers end when the queue is empty and closed.
                self.tasks = None;
                return;
            }
            let length = positions.len() * self.shared.image_length;
            let pixels = self.buffers.take(self.shared.depth, length);
            let assembly = Arc::new(Assembly::new(self.handed_out, positions.clone(), pixels));
            for first in positions.clone().step_by(self.piece) {
                let task = Task {
                    assembly: Arc::clone(&assembly),
                    positions: first..(first + self.piece).min(positions.end),
                };
                // Fails only if all workers are gone, which the wait for them will notice.
                let _ = tasks.send(task);
            }
            self.handed_out += 1;
        }
    }

    /// Waits for the batch whose turn it is.
    fn wait(&mut self) -> Result<Whole, DataError> {
        loop {
            if let Some(assembled) = self.early.remove(&self.next) {
                return assembled.outcome;
            }
            match self.done.recv() {
                Ok(assembled) => {
                    self.early.insert(assembled.number, assembled);
                }
                Err(mpsc::RecvError) => return Err(DataError::WorkersGone),
            }
        }
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.tasks = None;
        for worker in self.workers.drain(..) {
            // Panics in a dataset have been served as errors; there are no others.
            let _ = worker.join();
        }
    }
}

impl Iterator for Epoch {
    type Item = Result<LoadedBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(error) = self.failure.take() {
                self.stop();
                self.next = usize::MAX;
                return Some(Err(error));
            }
            if self.next >= self.handed_out {
                return None;
            }
            match self.wait() {
                Err(error) => self.failure = Some(error),
                Ok(Whole {
                    pixels,
                    images,
                    mixing,
                }) => {
                    let number = self.next;
                    self.next += 1;
                    self.hand_out();
                    if images.is_empty() {
                        // All of its images were skipped.
                        self.buffers.put(pixels);
                        continue;
                    }
                    let images = (&*self.shared.dataset, &images[..]);
                    let buffers = Arc::clone(&self.buffers);
                    match LoadedBatch::new(pixels, images, self.views, number, buffers) {
                        Ok(mut batch) => {
                            if let Some(mixing) = mixing {
                                let none = LoadedTargets::Classes(Vec::new());
                                let targets = std::mem::replace(&mut batch.targets, none);
                                batch.targets = mixing.targets(targets, self.classes);
                            }
                            return Some(Ok(batch));
                        }
                        Err(error) => self.failure = Some(error),
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoch")
            .field("next", &self.next)
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.stop();
    }
}

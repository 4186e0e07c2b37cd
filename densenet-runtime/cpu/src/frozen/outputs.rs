//! The outputs of a call beside logits: where they are kept, and how maps leave the arena of activations.
//!
//! The arena has pixels x channels. Callers get channels x pixels, as other libraries have them.

use super::memory::{Places, Shared};
use super::pointwise::Affine;
use super::share;
use crate::kernel::simd::{Kernel, Simd};
use crate::memory::OutOfMemory;
use densenet_plan::{Inference, Outputs, Plan};

/// Channels that are written together, so that a pixel's line is read once.
const CHANNELS: usize = 16;

/// Positions in the arena of outputs.
pub(super) struct Kept {
    pub wanted: Outputs,
    /// Images x classes.
    pub logits: usize,
    /// Images x features.
    pub features: usize,
    /// Images x wanted classes x pixels.
    pub class_maps: usize,
    /// Images x features x pixels.
    pub last_maps: usize,
    /// For each block, images x channels x pixels.
    pub block_maps: usize,
    /// How many numbers the arena has.
    pub len: usize,
    /// The largest number of class maps of an image.
    pub mapped: usize,
}

impl Kept {
    pub fn new(plan: &Plan, batch: usize, wanted: Outputs) -> Self {
        let mut places = Places::default();
        let mut place = |is_wanted: bool, each: usize| {
            places.place(if is_wanted {
                batch.saturating_mul(each)
            } else {
                0
            })
        };
        let (features, head) = (plan.features(), plan.head());
        let class_maps = wanted.most_class_maps(plan);
        let blocks = plan.blocks().iter();
        let blocks = blocks.map(|block| block.output() * block.pixels());
        Self {
            wanted,
            logits: place(true, plan.classes()),
            features: place(true, features),
            class_maps: place(true, class_maps.saturating_mul(head.pixels())),
            last_maps: place(wanted.needs_last_maps(), features * head.pixels()),
            block_maps: place(wanted.block_maps, blocks.sum()),
            len: places.len,
            mapped: batch.saturating_mul(class_maps),
        }
    }
}

/// Room for this many classes.
pub(super) fn classes(count: usize) -> Result<Vec<usize>, OutOfMemory> {
    let mut classes = Vec::new();
    let bytes = (count as u64).saturating_mul(size_of::<usize>() as u64);
    let what = "classes of maps";
    let room = classes.try_reserve_exact(count);
    room.map_err(|_| OutOfMemory { what, bytes })?;
    classes.resize(count, 0);
    Ok(classes)
}

/// The contents of the arena of outputs after a call with this many images.
pub(super) fn inference<'a>(
    plan: &'a Plan,
    kept: &Kept,
    values: &'a [f32],
    mapped: &'a [usize],
    images: usize,
) -> Inference<'a> {
    let part = |at: usize, each: usize| &values[at..][..images * each];
    let (features, pixels) = (plan.features(), plan.head().pixels());
    let blocks = plan.blocks().iter();
    let blocks = blocks.map(|block| block.output() * block.pixels());
    let if_wanted = |is_wanted: bool, each: usize| if is_wanted { each } else { 0 };
    Inference {
        plan,
        images,
        logits: part(kept.logits, plan.classes()),
        features: part(kept.features, features),
        mapped,
        class_maps: &values[kept.class_maps..][..mapped.len() * pixels],
        last_maps: part(
            kept.last_maps,
            if_wanted(kept.wanted.last_maps, features * pixels),
        ),
        block_maps: part(
            kept.block_maps,
            if_wanted(kept.wanted.block_maps, blocks.sum()),
        ),
    }
}

/// Copies maps from pixels x channels to channels x pixels, through a BN and a ReLU if there are any.
pub(super) struct Leave<'a> {
    /// Images x pixels x stride.
    pub values: &'a [f32],
    pub stride: usize,
    pub affine: Option<Affine<'a>>,
    pub channels: usize,
    /// The pixels of one image.
    pub pixels: usize,
    pub images: usize,
    /// Images x channels x pixels.
    pub out: Shared<'a>,
    /// The index of the thread that runs this, and the number of threads that share the work.
    pub thread: usize,
    pub threads: usize,
}

impl Kernel for Leave<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (channels, pixels) = (self.channels, self.pixels);
        let chunks = channels.div_ceil(CHANNELS);
        for unit in share(self.images * chunks, self.thread, self.threads) {
            let (image, first) = (unit / chunks, unit % chunks * CHANNELS);
            let count = CHANNELS.min(channels - first);
            let at = (image * channels + first) * pixels;
            let part = self.out.part(at..at + count * pixels);
            // SAFETY: each unit belongs to one thread.
            let out = unsafe { part.write() };
            for pixel in 0..pixels {
                let row = &self.values[(image * pixels + pixel) * self.stride + first..][..count];
                for (channel, &value) in row.iter().enumerate() {
                    out[channel * pixels + pixel] = match self.affine {
                        None => value,
                        Some(Affine { scale, shift }) => {
                            let value = value * scale[first + channel] + shift[first + channel];
                            // A comparison, so that NaN stays.
                            if value < 0.0 { 0.0 } else { value }
                        }
                    };
                }
            }
        }
    }
}

/// Class maps: products of the last feature maps with rows of the classifier.
pub(super) struct Classed<'a> {
    /// Images x channels x pixels.
    pub last: &'a [f32],
    /// Classes x channels.
    pub rows: &'a [f32],
    /// Images x wanted classes.
    pub mapped: &'a [usize],
    pub wanted: usize,
    pub channels: usize,
    /// The pixels of one image.
    pub pixels: usize,
    /// Images x wanted classes x pixels.
    pub out: Shared<'a>,
    /// The index of the thread that runs this, and the number of threads that share the work.
    pub thread: usize,
    pub threads: usize,
}

impl Kernel for Classed<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (channels, pixels) = (self.channels, self.pixels);
        for unit in share(self.mapped.len(), self.thread, self.threads) {
            let row = &self.rows[self.mapped[unit] * channels..][..channels];
            let maps = &self.last[unit / self.wanted * channels * pixels..][..channels * pixels];
            let part = self.out.part(unit * pixels..(unit + 1) * pixels);
            // SAFETY: each unit belongs to one thread.
            let out = unsafe { part.write() };
            out.fill(0.0);
            for (&weight, map) in row.iter().zip(maps.chunks_exact(pixels)) {
                for (out, value) in out.iter_mut().zip(map) {
                    *out += weight * value;
                }
            }
        }
    }
}

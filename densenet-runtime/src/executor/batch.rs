//! Images and targets, and the checks that an executor of a plan can take them.

use super::ExecutorError;
use super::targets::{check_rows, check_targets};
use crate::plan::{
    Frozen, FrozenTensors, MapsOf, NormTensors, Outputs, Pixels, Plan, Recompute, Stem, Targets,
};

/// Images and their targets.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The images.
    pub pixels: Pixels<'a>,
    /// The targets of these images.
    pub targets: Targets<'a>,
}

impl<'a> Batch<'a> {
    /// Images of one class each.
    pub fn of_classes(pixels: Pixels<'a>, labels: &'a [u32]) -> Self {
        Self {
            pixels,
            targets: Targets::Classes(labels),
        }
    }

    /// The number of images that it has targets for.
    pub fn images(&self, plan: &Plan) -> usize {
        self.targets.images(plan.classes())
    }

    /// Checks that a batch fits a plan and an executor's capacity; returns its images.
    pub(crate) fn check(&self, plan: &Plan, capacity: usize) -> Result<usize, ExecutorError> {
        // A truncated row of targets does not count as an image.
        check_rows(self.targets, plan.classes())?;
        let images = self.images(plan);
        check_pixels(plan.stem(), self.pixels, images, capacity)?;
        check_targets(self.targets, plan.classes())?;
        Ok(images)
    }
}

/// Checks that `pixels` has the length of `images` images, and that `images` is 1 to `capacity`.
pub(crate) fn check_pixels(
    stem: &Stem,
    pixels: Pixels<'_>,
    images: usize,
    capacity: usize,
) -> Result<(), ExecutorError> {
    if images == 0 || images > capacity {
        return Err(ExecutorError::BatchSize {
            found: images,
            capacity,
        });
    }
    let channels = stem.channels;
    // No slice has `usize::MAX` elements.
    let expected = [stem.height, stem.width, channels]
        .into_iter()
        .fold(images, usize::saturating_mul);
    if let Some((mean, std)) = pixels.norm() {
        for (what, values) in [("the mean", mean), ("the standard deviation", std)] {
            if values.len() != channels {
                let found = values.len();
                return Err(ExecutorError::Channels {
                    channels,
                    found,
                    what,
                });
            }
        }
    }
    let found = pixels.count();
    if found != expected {
        return Err(ExecutorError::Pixels {
            labels: images,
            shape: [channels, stem.height, stem.width],
            expected,
            found,
        });
    }
    Ok(())
}

/// The most bytes that a training step may need: far more than any machine has, but so few that the
/// sizes of padded buffers do not overflow.
const MOST_BYTES: u64 = 1 << 50;

/// Checks that an executor of a plan can be made for this batch size: kernels must be able to count
/// its pixels, and the sizes of buffers must not overflow.
pub(crate) fn check_capacity(plan: &Plan, batch: usize) -> Result<(), ExecutorError> {
    let most = plan.countable_batch();
    if !(1..=most).contains(&batch) {
        return Err(ExecutorError::Capacity { found: batch, most });
    }
    let bytes = plan.training_footprint(Recompute::Nothing).bytes(batch);
    if bytes > MOST_BYTES {
        return Err(ExecutorError::OutOfMemory {
            what: "a training step",
            bytes,
            advice: "use a smaller batch",
        });
    }
    Ok(())
}

/// Checks that at least one stage trains.
pub(crate) fn check_frozen(plan: &Plan, frozen: Frozen) -> Result<(), ExecutorError> {
    let stages = plan.stages().len();
    if frozen.stages() < stages {
        return Ok(());
    }
    Err(ExecutorError::Frozen {
        found: frozen.stages(),
        stages,
    })
}

/// Checks that the size of a frozen network's class maps does not overflow. Everything else that it
/// holds is smaller than a training step's buffers ([`check_capacity`]).
#[cfg(feature = "cuda")]
pub(crate) fn check_outputs(
    plan: &Plan,
    batch: usize,
    outputs: Outputs,
) -> Result<(), ExecutorError> {
    let values = [outputs.most_class_maps(plan), plan.head().pixels(), 4];
    let bytes = (values.into_iter()).fold(batch as u64, |bytes, count| {
        bytes.saturating_mul(count as u64)
    });
    if bytes > MOST_BYTES {
        return Err(ExecutorError::OutOfMemory {
            what: "class maps",
            bytes,
            advice: "ask for fewer, or use a smaller batch",
        });
    }
    Ok(())
}

/// Checks that a frozen network has the classes of the requested maps, and room for them.
pub(crate) fn check_maps(
    plan: &Plan,
    outputs: Outputs,
    of: MapsOf<'_>,
) -> Result<(), ExecutorError> {
    let classes = plan.classes();
    if let MapsOf::Classes(wanted) = of
        && let Some(&found) = wanted.iter().find(|&&class| class >= classes)
    {
        return Err(ExecutorError::ClassOfMap { found, classes });
    }
    let (found, kept) = (of.count(classes), outputs.most_class_maps(plan));
    if found > kept {
        return Err(ExecutorError::ClassMaps { found, kept });
    }
    Ok(())
}

/// Checks that a buffer from the caller has the right length.
pub(crate) fn check_length(
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), ExecutorError> {
    if found == expected {
        return Ok(());
    }
    Err(ExecutorError::Length {
        what,
        expected,
        found,
    })
}

/// Checks that each BN has more than one value of each channel to normalise over, unless it is frozen:
/// among `frozen`, or in a stage whose statistics come before `first`.
pub(crate) fn check_training(
    plan: &Plan,
    images: usize,
    frozen: FrozenTensors<'_>,
    first: usize,
) -> Result<(), ExecutorError> {
    let is_frozen = |norm: &NormTensors| norm.running().start < first || frozen.has_norm(norm);
    if images == 1
        && let Some(stage) = plan.stage_of_one_pixel()
        && (plan.norms().iter()).any(|(norm, pixels)| *pixels == 1 && !is_frozen(norm))
    {
        return Err(ExecutorError::OneValue { stage });
    }
    Ok(())
}

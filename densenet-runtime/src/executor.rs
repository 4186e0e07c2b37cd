//! What a plan runs on.
//!
//! An executor owns a network's whole training state: parameters, gradients, momentum, running
//! statistics, activations. It is made for one plan and one largest batch, allocates once, and
//! then computes. The CPU and CUDA executors do the same arithmetic behind this trait.

use crate::cpu::input;
use crate::plan::{Plan, Recompute};

/// Which numbers of the training state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arena {
    /// Trainable parameters, in the order of [`Plan::parameters`].
    Parameters,
    /// Their gradients.
    Gradients,
    /// Their momentum.
    Momentum,
    /// Running statistics, in the order of [`Plan::parameters`].
    Running,
}

/// The pixels of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Pixels<'a> {
    /// Batch x channels x height x width, ready for the network.
    Nchw(&'a [f32]),
    /// Batch x height x width x channels, bytes; the network sees
    /// `(byte / 255 - mean) / deviation` of each channel.
    Nhwc {
        /// The bytes.
        bytes: &'a [u8],
        /// Mean of each channel, of pixels in [0, 1].
        mean: &'a [f32],
        /// Standard deviation of each channel, of pixels in [0, 1].
        deviation: &'a [f32],
    },
}

/// Images and their labels.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The images.
    pub pixels: Pixels<'a>,
    /// The class of each image; their number is the batch's size.
    pub labels: &'a [u32],
}

/// The most bytes of a training step: far more than any machine has, and few enough that sizes of
/// buffers, with their padding, do not overflow.
const MOST_BYTES: u64 = 1 << 50;

/// Checks that there can be an executor of a plan for batches of so many images: that kernels can
/// count their pixels, and that sizes of buffers can be computed.
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

/// Checks that BN has more than one value of each channel to normalise over.
pub(crate) fn check_training(plan: &Plan, images: usize) -> Result<(), ExecutorError> {
    if images == 1
        && let Some(stage) = plan.stage_of_one_pixel()
    {
        return Err(ExecutorError::OneValue { stage });
    }
    Ok(())
}

impl Batch<'_> {
    /// Checks that a batch fits a plan and an executor's capacity; returns its images.
    pub(crate) fn check(&self, plan: &Plan, capacity: usize) -> Result<usize, ExecutorError> {
        let images = self.labels.len();
        input::check(plan.stem(), self.pixels, images, capacity)?;
        let classes = plan.classes();
        for (index, &label) in self.labels.iter().enumerate() {
            if label as usize >= classes {
                return Err(ExecutorError::Label {
                    index,
                    label,
                    classes,
                });
            }
        }
        Ok(images)
    }
}

/// How gradients are computed.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The share of the target that is spread over all classes, in [0, 1).
    pub label_smoothing: f32,
    /// Multiplies the gradient: 1 / n where n batches are accumulated.
    pub scale: f32,
    /// Adds to the gradients instead of replacing them.
    pub accumulate: bool,
    /// Seeds dropout; a new one for each step.
    pub seed: u64,
}

impl Default for Step {
    /// One batch of its own, without label smoothing.
    fn default() -> Self {
        Self {
            label_smoothing: 0.0,
            scale: 1.0,
            accumulate: false,
            seed: 0,
        }
    }
}

/// What came of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Mean cross-entropy over the batch, smoothed as asked.
    pub loss: f64,
    /// Images whose class has the highest logit, and no other has it too.
    pub top1: usize,
    /// Images whose class is among the five highest logits, equal ones counted before it.
    pub top5: usize,
}

impl Outcome {
    /// Counts an image whose logits are these: whether its class is the first, and among the first
    /// five. The one rule of all executors, which makes no network right that says nothing: a logit
    /// that is equal to the class's own stands before it, and where any is NaN the image is wrong.
    pub(crate) fn count<T: PartialOrd + Copy>(&mut self, logits: &[T], label: usize) {
        let own = logits[label];
        let is_nan = |z: T| z.partial_cmp(&z).is_none();
        if logits.iter().any(|&z| is_nan(z)) {
            return;
        }
        let below = logits.iter().filter(|&&z| z < own).count();
        let not_below = logits.len() - below;
        self.top1 += usize::from(not_below == 1);
        self.top5 += usize::from(not_below <= 5);
    }
}

/// A batch that was [started](Executor::start): what came of it, or a number to ask for it by.
#[derive(Debug)]
#[must_use = "the outcome is to be asked for with `Executor::finish`"]
pub struct Pending(Result<Outcome, u64>);

impl Pending {
    /// A batch that is done.
    pub fn done(outcome: Outcome) -> Self {
        Self(Ok(outcome))
    }

    /// A batch that is not done; the executor knows it by this number.
    pub fn later(number: u64) -> Self {
        Self(Err(number))
    }

    /// What came of it, if it is done.
    pub fn outcome(&self) -> Option<Outcome> {
        self.0.ok()
    }

    /// The number to ask by, if it is not done.
    pub fn number(&self) -> Option<u64> {
        self.0.err()
    }

    pub(crate) fn into_outcome(self) -> Result<Outcome, ExecutorError> {
        self.0.map_err(|number| {
            ExecutorError::Device(format!("batch {number} was started by another executor"))
        })
    }
}

/// Stochastic gradient descent with Nesterov momentum, without dampening (paper, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub rate: f32,
    /// Momentum; 0.9 in the paper.
    pub momentum: f32,
    /// Weight decay, on every parameter; 1e-4 in the paper.
    pub weight_decay: f32,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
}

impl Default for Sgd {
    /// The paper's, with its first rate.
    fn default() -> Self {
        Self {
            rate: 0.1,
            momentum: 0.9,
            weight_decay: 1e-4,
            nesterov: true,
        }
    }
}

/// Why an executor could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The batch has no images or more than the executor was made for.
    #[error(
        "a batch of {found} images does not fit an executor made for 1 to {capacity}; make it with a larger batch"
    )]
    BatchSize {
        /// Images found.
        found: usize,
        /// The most that fit.
        capacity: usize,
    },
    /// The largest batch that is asked for is zero, or more than can be counted.
    #[error("{}; an executor of this network can be made for 1 to {most} images", requested(*.found))]
    Capacity {
        /// Images asked for.
        found: usize,
        /// The most that can be counted ([`Plan::countable_batch`]).
        most: usize,
    },
    /// A single image cannot train a stage whose feature maps are one pixel: BN would normalise
    /// over one value.
    #[error(
        "BN takes more than 1 value per channel in training, but {stage} has feature maps of 1x1 pixels and the batch has 1 image; train on 2 images or more at a time, or on larger ones (a last batch of 1 image can be dropped)"
    )]
    OneValue {
        /// The stage, such as "block 4".
        stage: String,
    },
    /// The pixels are not as many as the labels and the input's shape ask for.
    #[error(
        "a batch of {labels} images of {shape:?} (channels, height, width) has {expected} values, found {found}"
    )]
    Pixels {
        /// Number of labels.
        labels: usize,
        /// Channels, height, width.
        shape: [usize; 3],
        /// Values expected.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// Mean or deviation is not given for each channel.
    #[error("the input has {channels} channels, but {found} values were given for {what}")]
    Channels {
        /// Channels of the input.
        channels: usize,
        /// Values given.
        found: usize,
        /// Mean or deviation.
        what: &'static str,
    },
    /// A label is no class of the network.
    #[error("image {index} of the batch has label {label}, but the network has {classes} classes (labels 0 to {})", .classes - 1)]
    Label {
        /// Which image of the batch.
        index: usize,
        /// Its label.
        label: u32,
        /// Classes of the network.
        classes: usize,
    },
    /// A buffer handed in has the wrong length.
    #[error("{what} has {expected} elements, found {found}")]
    Length {
        /// What was read or written.
        what: &'static str,
        /// Elements expected.
        expected: usize,
        /// Elements found.
        found: usize,
    },
    /// The device failed.
    #[error("{0}")]
    Device(String),
    /// There is not enough memory.
    #[error("no memory for {bytes} bytes of {what}; {advice}")]
    OutOfMemory {
        /// What was to be allocated.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// What to do.
        advice: &'static str,
    },
}

/// What is wrong with the batch size that was asked for.
fn requested(batch: usize) -> String {
    match batch {
        0 => "the requested batch size is zero".into(),
        batch => format!("the requested batch size, {batch}, is too large to count its pixels"),
    }
}

impl ExecutorError {
    /// The same in inference, which has nothing to recompute.
    pub(crate) fn in_inference(self) -> Self {
        match self {
            Self::OutOfMemory { what, bytes, .. } => Self::OutOfMemory {
                what,
                bytes,
                advice: "use a smaller batch",
            },
            other => other,
        }
    }
}

/// Runs a plan and owns its training state.
pub trait Executor: Send {
    /// The plan that it runs.
    fn plan(&self) -> &Plan;

    /// The largest batch.
    fn capacity(&self) -> usize;

    /// Copies a part of the training state out.
    ///
    /// # Errors
    /// When `into` has another length.
    fn read(&self, arena: Arena, into: &mut [f32]) -> Result<(), ExecutorError>;

    /// Copies a part of the training state in.
    ///
    /// # Errors
    /// When `from` has another length.
    fn write(&mut self, arena: Arena, from: &[f32]) -> Result<(), ExecutorError>;

    /// Forward and backward pass on a batch's statistics: the loss's gradients are in
    /// [`Arena::Gradients`] afterwards, and the running statistics are updated.
    ///
    /// Where the loss is not finite, the running statistics are again what they were before the
    /// first of the batches that are accumulated, and the gradients mean nothing.
    ///
    /// # Errors
    /// When the batch does not fit the plan, or is a single image whose last feature maps are one
    /// pixel ([`ExecutorError::OneValue`]). Nothing has changed then.
    fn differentiate(&mut self, batch: Batch<'_>, step: Step) -> Result<Outcome, ExecutorError>;

    /// Starts what [`differentiate`](Self::differentiate) does. A device may be at work when this
    /// returns: the next batch can be brought to it meanwhile, and nothing waits for the loss.
    ///
    /// A [`descend`](Self::descend) that follows while the outcome has not been asked for changes
    /// nothing if the loss turns out not to be finite, and neither do later ones, until
    /// [`finish`](Self::finish) has said so; the running statistics are then what they were before
    /// that batch, whatever was started since. An executor that is done at once
    /// ([`Pending::outcome`]) leaves that to its caller.
    ///
    /// # Errors
    /// As [`differentiate`](Self::differentiate).
    fn start(&mut self, batch: Batch<'_>, step: Step) -> Result<Pending, ExecutorError> {
        self.differentiate(batch, step).map(Pending::done)
    }

    /// Waits for a batch that was started.
    ///
    /// # Errors
    /// When the device fails, or the batch was started by another executor.
    fn finish(&mut self, pending: Pending) -> Result<Outcome, ExecutorError> {
        pending.into_outcome()
    }

    /// One step of gradient descent with the gradients at hand.
    ///
    /// # Errors
    /// When the device fails.
    fn descend(&mut self, sgd: Sgd) -> Result<(), ExecutorError>;

    /// [`start`](Self::start), and [`descend`](Self::descend) behind it: a whole step, which a
    /// device does in one. Where the loss is known at once and not finite, nothing descends.
    ///
    /// # Errors
    /// As both.
    fn step(&mut self, batch: Batch<'_>, step: Step, sgd: Sgd) -> Result<Pending, ExecutorError> {
        let pending = self.start(batch, step)?;
        if pending.outcome().is_none_or(|own| own.loss.is_finite()) {
            self.descend(sgd)?;
        }
        Ok(pending)
    }

    /// Forward pass with running statistics, without dropout. The loss is not smoothed.
    ///
    /// # Errors
    /// When the batch does not fit the plan.
    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Outcome, ExecutorError>;

    /// Adds up numbers over all executors that train together
    /// ([`parallel`](crate::parallel)); one that is alone leaves them as they are.
    ///
    /// # Errors
    /// When another one has gone.
    fn total(&mut self, sums: &mut [f64]) -> Result<(), ExecutorError> {
        let _ = sums;
        Ok(())
    }

    /// Copies out the logits of the latest batch: batch x classes.
    ///
    /// # Errors
    /// When `into` has another length.
    fn logits(&self, into: &mut [f32]) -> Result<(), ExecutorError>;
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    fn counted(logits: &[f32], label: usize) -> (usize, usize) {
        let mut outcome = Outcome::default();
        outcome.count(logits, label);
        let doubles: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
        let mut same = Outcome::default();
        same.count(&doubles, label);
        assert_eq!(outcome, same);
        (outcome.top1, outcome.top5)
    }

    #[test]
    fn a_class_is_right_where_it_stands_above_all_others() {
        let logits = [0.0, 3.0, 1.0, 5.0, 2.0, 4.0, -1.0];
        let right = (0..7)
            .map(|label| counted(&logits, label))
            .collect::<Vec<_>>();
        let expected = [(0, 0), (0, 1), (0, 1), (1, 1), (0, 1), (0, 1), (0, 0)];
        assert_eq!(right, expected);
    }

    #[test]
    fn ties_count_as_wrong() {
        assert_eq!(counted(&[0.0; 10], 3), (0, 0));
        assert_eq!(counted(&[1.0, 1.0, 0.0], 0), (0, 1));
        assert_eq!(counted(&[0.0, -0.0], 0), (0, 1));
    }

    #[test]
    fn nan_is_never_right() {
        for classes in [1, 2, 5, 6, 10] {
            for label in 0..classes {
                assert_eq!(counted(&vec![f32::NAN; classes], label), (0, 0));
                let mut one = vec![0.0; classes];
                one[label] = 1.0;
                one[classes - 1] = f32::NAN;
                assert_eq!(counted(&one, label), (0, 0));
            }
        }
    }
}

//! Why an executor could not do what was asked.

use densenet_cpu::memory::OutOfMemory;

/// Why an executor could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The batch has no images, or more than the executor was made for.
    #[error(
        "a batch of {found} images does not fit an executor made for 1 to {capacity}; make it with a larger batch"
    )]
    BatchSize {
        /// Images found.
        found: usize,
        /// The most that fit.
        capacity: usize,
    },
    /// The requested batch size is zero, or more than can be counted.
    #[error("{}; an executor of this network can be made for 1 to {most} images", requested(*.found))]
    Capacity {
        /// Images requested.
        found: usize,
        /// The most that can be counted
        /// ([`Plan::countable_batch`](crate::plan::Plan::countable_batch)).
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
    /// The number of pixels does not fit the targets and the shape of the input.
    #[error(
        "a batch of {labels} images of {shape:?} (channels, height, width) has {expected} values, found {found}"
    )]
    Pixels {
        /// Images that have targets.
        labels: usize,
        /// Channels, height, width.
        shape: [usize; 3],
        /// Values expected.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// The mean or the standard deviation does not have one value for each channel.
    #[error("the input has {channels} channels, but {found} values were given for {what}")]
    Channels {
        /// Channels of the input.
        channels: usize,
        /// Values given.
        found: usize,
        /// Mean or standard deviation.
        what: &'static str,
    },
    /// A label is not a class of the network.
    #[error("image {index} of the batch has label {label}, but the network has {classes} classes (labels 0 to {})", .classes - 1)]
    Label {
        /// Which image of the batch.
        index: usize,
        /// Its label.
        label: u32,
        /// Classes of the network.
        classes: usize,
    },
    /// Targets of each class are not a whole number of rows.
    #[error(
        "{found} values are not a whole number of rows of targets: the network has {classes} \
            classes, and each image needs a value for each"
    )]
    TargetLength {
        /// Values found.
        found: usize,
        /// Classes of the network.
        classes: usize,
    },
    /// A target is not a number from 0 to 1.
    #[error(
        "image {image} of the batch has target {found} for class {class}; {}", in_range(*.unknown)
    )]
    Target {
        /// Which image of the batch.
        image: usize,
        /// Which class.
        class: usize,
        /// Its target.
        found: f32,
        /// Whether a target may be unknown.
        unknown: bool,
    },
    /// The probabilities of an image's classes do not add up to 1.
    #[error(
        "the probabilities of image {image} of the batch add up to {sum}, not to 1; if several classes may apply to one image, use independent targets"
    )]
    Probabilities {
        /// Which image of the batch.
        image: usize,
        /// The sum.
        sum: f64,
    },
    /// There is not one weight for each class.
    #[error(
        "there are {found} {what}, but the network has {classes} classes; give one for each, or none"
    )]
    LossWeightCount {
        /// Class weights or positive weights.
        what: &'static str,
        /// Classes of the network.
        classes: usize,
        /// Weights found.
        found: usize,
    },
    /// A weight is negative or not finite.
    #[error("{what}: class {class} has {found}; a weight must be 0 or more and finite")]
    LossWeight {
        /// Class weights or positive weights.
        what: &'static str,
        /// Which class.
        class: usize,
        /// Its weight.
        found: f32,
    },
    /// Independent targets are not smoothed.
    #[error(
        "label smoothing is {smoothing}, but the batch has independent targets, which are not smoothed; set it to 0"
    )]
    Smoothing {
        /// The requested share.
        smoothing: f32,
    },
    /// All stages are frozen.
    #[error(
        "freezing {found} of the network's {stages} stages would leave nothing to train; leave at \
            least the classifier"
    )]
    Frozen {
        /// Stages to be frozen.
        found: usize,
        /// Stages of the network.
        stages: usize,
    },
    /// The executor was made without the requested part.
    #[error("this executor does not keep {what}; make it with `{option}: true`")]
    NotKept {
        /// The requested part.
        what: &'static str,
        /// The option that it is made with.
        option: &'static str,
    },
    /// A class map was requested for a class that the network does not have.
    #[error("a map of class {found} was requested, but the network has {classes} classes (0 to \
        {})", .classes - 1)]
    ClassOfMap {
        /// The requested class.
        found: usize,
        /// Classes of the network.
        classes: usize,
    },
    /// More class maps were requested than the network was frozen for.
    #[error(
        "{found} class maps per image were requested, but the network was frozen for {kept}; \
            freeze it with more (`outputs.class_maps`), or request each class once"
    )]
    ClassMaps {
        /// Class maps of an image that were requested.
        found: usize,
        /// The most that it was frozen for.
        kept: usize,
    },
    /// Groups of parameters do not follow one another, or have no shares.
    #[error(
        "the next group of parameters must start at {from}, and its shares must be 0 or more, found {found}"
    )]
    Groups {
        /// The group.
        found: String,
        /// Where it must start.
        from: usize,
    },
    /// A tensor or a BN is frozen in part.
    #[error(
        "{part} would be partly frozen, but a tensor is frozen as a whole, and a BN's scale with \
            its bias; freeze all of it, or nothing"
    )]
    FrozenInPart {
        /// The tensor or the BN, by its name in torchvision's checkpoints.
        part: String,
    },
    /// A buffer handed in has the wrong length.
    #[error("{what} has {expected} elements, found {found}")]
    Length {
        /// The buffer.
        what: &'static str,
        /// Elements expected.
        expected: usize,
        /// Elements found.
        found: usize,
    },
    /// The device failed.
    #[error("{0}")]
    Device(#[source] Box<dyn std::error::Error + Send + Sync>),
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

/// What is wrong with the requested batch size.
fn requested(batch: usize) -> String {
    match batch {
        0 => "the requested batch size is zero".into(),
        batch => format!("the requested batch size, {batch}, is too large to count its pixels"),
    }
}

/// What a target of a class must be.
fn in_range(unknown: bool) -> &'static str {
    match unknown {
        false => "a probability must be in [0, 1]",
        true => "it must be in [0, 1], or NaN if it is unknown",
    }
}

impl ExecutorError {
    /// There is no memory for an executor's buffers.
    pub(crate) fn in_training(OutOfMemory { what, bytes }: OutOfMemory) -> Self {
        Self::OutOfMemory {
            what,
            bytes,
            advice: "use a smaller batch, or recompute the bottlenecks if they are kept",
        }
    }

    /// There is no memory in inference, which has nothing to recompute.
    pub(crate) fn in_inference(OutOfMemory { what, bytes }: OutOfMemory) -> Self {
        Self::OutOfMemory {
            what,
            bytes,
            advice: "use a smaller batch",
        }
    }
}

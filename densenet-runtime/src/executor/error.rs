//! Why an executor could not do what was asked.

use densenet_cpu::memory::OutOfMemory;

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
    /// The number of pixels does not fit the labels and the shape of the input.
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

/// What is wrong with the batch size that was asked for.
fn requested(batch: usize) -> String {
    match batch {
        0 => "the requested batch size is zero".into(),
        batch => format!("the requested batch size, {batch}, is too large to count its pixels"),
    }
}

impl ExecutorError {
    /// There is no memory for an executor's buffers.
    pub(crate) fn in_training(OutOfMemory { what, bytes }: OutOfMemory) -> Self {
        Self::OutOfMemory {
            what,
            bytes,
            advice: "use a smaller batch, or recompute the bottlenecks",
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

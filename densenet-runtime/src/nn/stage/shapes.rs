//! A stage's shapes, and the check that values fit them, on which all computation relies.

use crate::plan::{Block, Head, Stem, StemKind, Transition};

/// A stage, with its shapes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Stem(Stem),
    Block(Block),
    Transition(Transition),
    Head(Head),
}

/// How many numbers a stage reads and writes.
struct Counts {
    /// Input values for each image.
    input: u128,
    /// Output values for each image.
    output: u128,
    trainable: u128,
    running: u128,
    /// The fewest pixels of an image that any of its BNs normalises over.
    pixels: usize,
    /// An upper bound of the values in its largest buffer, for each image.
    largest: u128,
}

impl Part {
    /// The number of images in `input` values, if they, `output` values and the numbers of the
    /// parameters fit this stage; all that computes relies on it. `None` if they do not, or if
    /// buffers would be too large to count.
    pub(crate) fn images(
        self,
        (trainable, running): (usize, usize),
        input: usize,
        output: usize,
    ) -> Option<usize> {
        /// The most values that a buffer may have: padded sizes then do not overflow.
        const MOST: u128 = 1 << 48;
        let counts = self.counts()?;
        let images = input as u128 / counts.input;
        let fits = images * counts.input == input as u128
            && images * counts.output == output as u128
            && counts.trainable == trainable as u128
            && counts.running == running as u128
            && images * counts.largest <= MOST;
        fits.then_some(images as usize)
    }

    /// Input values for each image.
    pub(crate) fn values(self) -> usize {
        match self {
            Self::Stem(stem) => stem.channels * stem.height * stem.width,
            Self::Block(block) => block.input * block.pixels(),
            Self::Transition(transition) => transition.input * transition.pixels(),
            Self::Head(head) => head.input * head.pixels(),
        }
    }

    /// Whether BN has more than one value of each channel to normalise over.
    pub(crate) fn can_train(self, images: usize) -> bool {
        let pixels = self.counts().map_or(0, |counts| counts.pixels);
        images > 1 || (images == 1 && pixels > 1)
    }

    /// The numbers for the shapes, if they are valid: sizes have 31 bits, so products of four fit.
    fn counts(self) -> Option<Counts> {
        let wide = |size: usize| size as u128;
        let counts = match self {
            Self::Stem(stem) => {
                stem.check().ok()?;
                let norm = match stem.kind {
                    StemKind::ImageNet => 2 * wide(stem.maps),
                    StemKind::Cifar => 0,
                };
                let (height, width) = stem.convolved_size();
                let (pooled_height, pooled_width) = stem.output_size();
                let kernel = wide(stem.kernel());
                let maps = wide(stem.maps) * wide(height * width);
                let input = wide(stem.channels) * wide(stem.height * stem.width);
                Counts {
                    input,
                    output: wide(stem.maps) * wide(pooled_height * pooled_width),
                    trainable: wide(stem.maps) * wide(stem.channels) * kernel * kernel + norm,
                    running: norm,
                    pixels: match stem.kind {
                        StemKind::ImageNet => height * width,
                        // No BN.
                        StemKind::Cifar => usize::MAX,
                    },
                    largest: maps + input,
                }
            }
            Self::Block(block) => {
                block.check().ok()?;
                let (mut trainable, mut running) = (0, 0);
                for layer in block.iter() {
                    let (input, growth) = (wide(layer.input), wide(layer.growth));
                    let (inner, squeeze) = match layer.bottleneck {
                        Some(maps) => (wide(maps), input * wide(maps)),
                        None => (input, 0),
                    };
                    let norms = 2 * (input + layer.bottleneck.map_or(0, wide));
                    trainable += norms + squeeze + 9 * inner * growth;
                    running += norms;
                }
                let pixels = wide(block.pixels());
                let bottlenecks = wide(block.layers) * block.bottleneck.map_or(0, wide);
                Counts {
                    input: wide(block.input) * pixels,
                    output: wide(block.output()) * pixels,
                    trainable,
                    running,
                    pixels: block.pixels(),
                    largest: pixels * (wide(block.output()) + bottlenecks),
                }
            }
            Self::Transition(transition) => {
                transition.check().ok()?;
                let (input, output) = (wide(transition.input), wide(transition.output));
                let (height, width) = transition.output_size();
                Counts {
                    input: input * wide(transition.pixels()),
                    output: output * wide(height * width),
                    trainable: input * output + 2 * input,
                    running: 2 * input,
                    pixels: transition.pixels(),
                    largest: input * wide(transition.pixels()),
                }
            }
            Self::Head(head) => {
                let sizes = [head.input, head.classes, head.height, head.width];
                let is_size = |size: &usize| (1..=i32::MAX as usize).contains(size);
                if !sizes.iter().all(is_size) {
                    return None;
                }
                let (channels, classes) = (wide(head.input), wide(head.classes));
                let pixels = wide(head.height) * wide(head.width);
                Counts {
                    input: channels * pixels,
                    output: classes,
                    trainable: 2 * channels + (channels + 1) * classes,
                    running: 2 * channels,
                    pixels: usize::try_from(pixels).ok()?,
                    largest: channels * pixels + classes,
                }
            }
        };
        Some(counts)
    }

    /// The stage in words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stem(_) => "the stem",
            Self::Block(_) => "a block",
            Self::Transition(_) => "a transition",
            Self::Head(_) => "the last norm",
        }
    }
}

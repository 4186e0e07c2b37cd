//! What holds for every plan: its stages fit together, and its sizes and counts do not overflow.
//!
//! The checks are `const`, so that a plan in generated code is checked at compile time.

use super::{Block, Stem, StemKind, Transition};
use crate::PlanError;

/// The most dense layers that a block may have.
const MOST_LAYERS: usize = 4096;
/// Every dimension, and the pixels of every feature map, fit in 31 bits, with which kernels count
/// them.
const MOST_SIZE: usize = i32::MAX as usize;
/// The most multiply-adds of an image.
const MOST_MULTIPLY_ADDS: u128 = i64::MAX as u128;
/// The most trainable parameters, and the most values that a training step keeps for an image: more
/// than any machine can hold, but few enough that the sizes of padded buffers do not overflow.
const MOST_VALUES: u128 = 1 << 46;

/// Why stages and classes do not make a plan.
#[derive(Clone, Copy)]
pub(crate) enum Flaw {
    Zero(&'static str),
    Overflow(&'static str),
    TooManyLayers {
        block: usize,
        found: usize,
    },
    Dropout(f64),
    /// Stages that do not fit together, which only generated code could contain.
    Apart(&'static str),
}

impl Flaw {
    /// The message, as far as a constant can give it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Zero(what) | Self::Overflow(what) | Self::Apart(what) => what,
            Self::TooManyLayers { .. } => "a block has too many layers",
            Self::Dropout(_) => "dropout is not in [0, 1)",
        }
    }
}

impl From<Flaw> for PlanError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Zero(what) => Self::Zero { what },
            Flaw::Overflow(what) | Flaw::Apart(what) => Self::Overflow { what },
            Flaw::TooManyLayers { block, found } => Self::TooManyLayers {
                block,
                found,
                most: MOST_LAYERS,
            },
            Flaw::Dropout(found) => Self::Dropout { found },
        }
    }
}

/// Checks that dropout is in [0, 1).
pub(crate) const fn dropout(probability: f64) -> Result<(), Flaw> {
    // NaN fails both comparisons.
    if probability >= 0.0 && probability < 1.0 {
        Ok(())
    } else {
        Err(Flaw::Dropout(probability))
    }
}

/// Checks everything.
pub(crate) const fn stages(
    stem: &Stem,
    blocks: &[Block],
    transitions: &[Transition],
    classes: usize,
    probability: f64,
) -> Result<(), Flaw> {
    if let Err(flaw) = dropout(probability) {
        return Err(flaw);
    }
    if blocks.is_empty() {
        return Err(Flaw::Zero("the number of blocks"));
    }
    if transitions.len() + 1 != blocks.len() {
        return Err(Flaw::Apart(
            "there must be exactly one transition between two blocks",
        ));
    }
    if let Err(flaw) = stem.flawless() {
        return Err(flaw);
    }
    let (mut maps, mut size) = (stem.maps, stem.output_size());
    let mut count = Count::of_stem(stem);
    let mut index = 0;
    while index < blocks.len() {
        let block = &blocks[index];
        if block.layers > MOST_LAYERS {
            return Err(Flaw::TooManyLayers {
                block: index + 1,
                found: block.layers,
            });
        }
        if let Err(flaw) = block.flawless() {
            return Err(flaw);
        }
        if block.input != maps || block.height != size.0 || block.width != size.1 {
            return Err(Flaw::Apart(
                "a block's input is not the output of the stage before it",
            ));
        }
        count.block(block);
        (maps, size) = (block.output(), (block.height, block.width));
        if index < transitions.len() {
            let transition = &transitions[index];
            if let Err(flaw) = transition.flawless() {
                return Err(flaw);
            }
            if transition.input != maps || transition.height != size.0 || transition.width != size.1
            {
                return Err(Flaw::Apart(
                    "a transition's input is not the output of its block",
                ));
            }
            count.transition(transition);
            (maps, size) = (transition.output, transition.output_size());
        }
        index += 1;
    }
    if classes == 0 {
        return Err(Flaw::Zero("the number of classes"));
    }
    if classes > MOST_SIZE {
        return Err(Flaw::Overflow("the classes"));
    }
    count.head(maps, classes);
    count.check()
}

/// Checks that `height * width` fits.
const fn countable(height: usize, width: usize) -> bool {
    matches!(height.checked_mul(width), Some(pixels) if pixels <= MOST_SIZE)
}

/// The largest size.
const fn largest(sizes: &[usize]) -> usize {
    let (mut most, mut index) = (0, 0);
    while index < sizes.len() {
        if sizes[index] > most {
            most = sizes[index];
        }
        index += 1;
    }
    most
}

impl Stem {
    /// Checks the shapes of a stage on its own: nothing is empty, and sizes do not overflow. Those
    /// of a [`Plan`](crate::Plan) are so.
    ///
    /// # Errors
    /// The first number that is out of range.
    pub fn check(&self) -> Result<(), PlanError> {
        Ok(self.flawless()?)
    }

    const fn flawless(&self) -> Result<(), Flaw> {
        if self.maps == 0 || self.channels == 0 || self.height == 0 || self.width == 0 {
            return Err(Flaw::Zero("the channels, height, width and maps of a stem"));
        }
        if largest(&[self.channels, self.height, self.width, self.maps]) > MOST_SIZE {
            return Err(Flaw::Overflow("the feature maps"));
        }
        if !countable(self.height, self.width) {
            return Err(Flaw::Overflow("the pixels of the input"));
        }
        Ok(())
    }
}

impl Block {
    /// Checks the shapes of a stage on its own: nothing is empty, and sizes do not overflow. Those
    /// of a [`Plan`](crate::Plan) are so.
    ///
    /// # Errors
    /// The first number that is out of range.
    pub fn check(&self) -> Result<(), PlanError> {
        Ok(self.flawless()?)
    }

    const fn flawless(&self) -> Result<(), Flaw> {
        if self.layers == 0
            || self.growth == 0
            || self.input == 0
            || self.height == 0
            || self.width == 0
            || matches!(self.bottleneck, Some(0))
        {
            return Err(Flaw::Zero(
                "the layers, growth rate, maps and pixels of a block",
            ));
        }
        let bottleneck = match self.bottleneck {
            Some(maps) => maps,
            None => 0,
        };
        let output = match self.layers.checked_mul(self.growth) {
            Some(grown) => self.input.saturating_add(grown),
            None => usize::MAX,
        };
        if largest(&[output, bottleneck]) > MOST_SIZE {
            return Err(Flaw::Overflow("the feature maps"));
        }
        if !countable(self.height, self.width) {
            return Err(Flaw::Overflow("the pixels of a block"));
        }
        Ok(())
    }
}

impl Transition {
    /// Checks the shapes of a stage on its own: nothing is empty, and sizes do not overflow. Those
    /// of a [`Plan`](crate::Plan) are so.
    ///
    /// # Errors
    /// The first number that is out of range.
    pub fn check(&self) -> Result<(), PlanError> {
        Ok(self.flawless()?)
    }

    const fn flawless(&self) -> Result<(), Flaw> {
        if self.input == 0 || self.output == 0 {
            return Err(Flaw::Zero("the maps of a transition"));
        }
        if self.height < 2 || self.width < 2 {
            return Err(Flaw::Zero("the pixels after a transition"));
        }
        if self.output > self.input {
            return Err(Flaw::Apart("a transition makes more maps than it reads"));
        }
        if self.input > MOST_SIZE {
            return Err(Flaw::Overflow("the feature maps"));
        }
        if !countable(self.height, self.width) {
            return Err(Flaw::Overflow("the pixels of a transition"));
        }
        Ok(())
    }
}

/// Sums over stages that have been checked. A size has 31 bits and a block at most 4096 layers, so
/// 128 bits hold every sum.
struct Count {
    multiply_adds: u128,
    parameters: u128,
    /// A lower bound on the values that a training step keeps for an image.
    values: u128,
}

impl Count {
    const fn of_stem(stem: &Stem) -> Self {
        let (height, width) = stem.convolved_size();
        let pixels = height as u128 * width as u128;
        let norm = match stem.kind {
            StemKind::ImageNet => 2 * stem.maps as u128,
            StemKind::Cifar => 0,
        };
        let image = stem.channels as u128 * stem.height as u128 * stem.width as u128;
        Self {
            multiply_adds: stem.multiply_adds() * pixels,
            parameters: stem.multiply_adds() + norm,
            values: image + 2 * stem.maps as u128 * pixels,
        }
    }

    const fn block(&mut self, block: &Block) {
        let pixels = block.pixels() as u128;
        let mut index = 0;
        while index < block.layers {
            let layer = block.layer(index);
            self.multiply_adds += layer.multiply_adds() * pixels;
            self.parameters += layer.parameters();
            index += 1;
        }
        let bottleneck = match block.bottleneck {
            Some(maps) => (block.layers as u128 + 1) * maps as u128,
            None => 0,
        };
        // The maps, their gradient, and the values that blocks and layers pass to each other.
        self.values += pixels * (4 * block.output() as u128 + bottleneck);
    }

    const fn transition(&mut self, transition: &Transition) {
        let weights = transition.input as u128 * transition.output as u128;
        self.multiply_adds += weights * transition.pixels() as u128;
        self.parameters += weights + 2 * transition.input as u128;
    }

    const fn head(&mut self, features: usize, classes: usize) {
        let (features, classes) = (features as u128, classes as u128);
        self.multiply_adds += features * classes;
        self.parameters += 2 * features + (features + 1) * classes;
        self.values += 2 * (features + classes);
    }

    const fn check(&self) -> Result<(), Flaw> {
        if self.multiply_adds > MOST_MULTIPLY_ADDS {
            return Err(Flaw::Overflow("the multiply-adds"));
        }
        if self.parameters > MOST_VALUES {
            return Err(Flaw::Overflow("the parameters"));
        }
        if self.values > MOST_VALUES {
            return Err(Flaw::Overflow("the activations"));
        }
        Ok(())
    }
}

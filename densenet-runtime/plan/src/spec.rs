//! The spec: what a person writes.

use crate::{Block, Plan, PlanError, Ratio, Stem, StemKind, TooSmall, Transition};

/// One dense block of a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSpec {
    /// Number of dense layers.
    pub layers: usize,
    /// Growth rate k: the feature maps that each layer adds.
    pub growth: usize,
}

/// A DenseNet as written, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The dense blocks, first to last.
    pub blocks: Vec<BlockSpec>,
    /// Compression: a transition keeps `floor(theta * m)` of m feature maps.
    pub theta: Ratio,
    /// Bottleneck width as a multiple of k; `None` for plain layers.
    pub bottleneck: Option<usize>,
    /// The first layers.
    pub stem: StemKind,
    /// Feature maps that the stem makes.
    pub init: usize,
    /// Channels, height and width of an input image.
    pub input: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Probability with which dropout zeroes a value, in [0, 1).
    pub dropout: f64,
}

impl Spec {
    /// Works out the plan.
    ///
    /// # Errors
    /// Every reason why there is no plan, not only the first.
    pub fn plan(&self) -> Result<Plan, Vec<PlanError>> {
        let mut errors = Vec::new();
        let mut zero = |what, number: usize| {
            if number == 0 {
                errors.push(PlanError::Zero { what });
            }
        };
        zero("the number of blocks", self.blocks.len());
        for block in &self.blocks {
            zero("the layers of a block", block.layers);
            zero("the growth rate", block.growth);
        }
        zero("the bottleneck multiple", self.bottleneck.unwrap_or(1));
        zero("the stem's feature maps", self.init);
        zero("the channels of the input", self.input[0]);
        zero("the height of the input", self.input[1]);
        zero("the width of the input", self.input[2]);
        zero("the number of classes", self.classes);
        if self.theta.exceeds_one() {
            errors.push(PlanError::Theta { found: self.theta });
        }
        if !errors.is_empty() {
            return Err(errors);
        }

        let [channels, height, width] = self.input;
        let walk = self.walk(height, width);
        if walk.last().is_some_and(|&(_, h, w)| h == 0 || w == 0) {
            return Err(vec![PlanError::TooSmall(TooSmall {
                input: (height, width),
                walk,
                smallest: self.smallest_side(),
            })]);
        }

        self.shapes(channels, height, width)
            .map_err(|error| vec![error])
    }

    /// The smallest height and width of an input that leave at least one pixel for the last block.
    pub fn smallest_side(&self) -> usize {
        // The side after the last transition does not shrink when the input grows, so bisection
        // finds the bound, below a side that is large enough.
        let fits = |side: usize| self.walk(side, side).iter().all(|&(_, h, _)| h > 0);
        let mut too_small = 0;
        let mut large = 1usize;
        while !fits(large) {
            too_small = large;
            match large.checked_mul(2) {
                Some(next) => large = next,
                None => return usize::MAX,
            }
        }
        while large - too_small > 1 {
            let middle = too_small + (large - too_small) / 2;
            if fits(middle) {
                large = middle;
            } else {
                too_small = middle;
            }
        }
        large
    }

    /// Each step that changes the size of the feature maps, up to the first that leaves no pixel.
    fn walk(&self, height: usize, width: usize) -> Vec<(String, usize, usize)> {
        let mut walk: Vec<_> = self
            .stem
            .steps(height)
            .into_iter()
            .zip(self.stem.steps(width))
            .map(|((step, h), (_, w))| (step.to_string(), h, w))
            .collect();
        let (mut h, mut w) = walk.last().map_or((height, width), |&(_, h, w)| (h, w));
        for transition in 1..self.blocks.len() {
            if h == 0 || w == 0 {
                break;
            }
            (h, w) = (h / 2, w / 2);
            walk.push((format!("transition {transition}"), h, w));
        }
        walk
    }

    fn shapes(&self, channels: usize, height: usize, width: usize) -> Result<Plan, PlanError> {
        let overflow = |what| PlanError::Overflow { what };
        let stem = Stem {
            kind: self.stem,
            channels,
            height,
            width,
            maps: self.init,
        };
        let (mut height, mut width) = stem.output_size();
        let mut maps = self.init;
        let mut blocks = Vec::with_capacity(self.blocks.len());
        let mut transitions = Vec::with_capacity(self.blocks.len().saturating_sub(1));
        for (index, spec) in self.blocks.iter().enumerate() {
            let bottleneck = match self.bottleneck {
                Some(multiple) => Some(
                    multiple
                        .checked_mul(spec.growth)
                        .ok_or(overflow("the bottleneck's feature maps"))?,
                ),
                None => None,
            };
            let block = Block {
                input: maps,
                layers: spec.layers,
                growth: spec.growth,
                bottleneck,
                height,
                width,
            };
            maps = spec
                .layers
                .checked_mul(spec.growth)
                .and_then(|grown| grown.checked_add(maps))
                .ok_or(overflow("the feature maps of a block"))?;
            blocks.push(block);
            if index + 1 < self.blocks.len() {
                let output = self
                    .theta
                    .floor_of(maps)
                    .ok_or(overflow("the feature maps after a transition"))?;
                if output == 0 {
                    let transition = index + 1;
                    return Err(PlanError::NothingLeft { transition, maps });
                }
                let transition = Transition {
                    input: maps,
                    output,
                    height,
                    width,
                };
                (height, width) = transition.output_size();
                maps = output;
                transitions.push(transition);
            }
        }
        Plan::from_stages(stem, blocks, transitions, self.classes, self.dropout)
    }
}

//! Stages and tensors that do not train.

use std::ops::Range;

use crate::{NormTensors, Plan, Span};

/// The first stages of a network, which do not train. They need no gradient and keep nothing for a
/// backward pass.
///
/// The stages are the stem, each block and the transition after it, the last BN, and the
/// classifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    stages: usize,
}

impl Frozen {
    /// The first `stages` stages of a network.
    pub const fn first(stages: usize) -> Self {
        Self { stages }
    }

    /// All stages of a network.
    pub fn all(plan: &Plan) -> Self {
        Self::first(2 * plan.blocks().len() + 2)
    }

    /// How many stages are frozen.
    pub const fn stages(self) -> usize {
        self.stages
    }

    /// Whether the stem is.
    pub const fn stem(self) -> bool {
        self.stages > 0
    }

    /// Whether a block is.
    pub const fn block(self, index: usize) -> bool {
        self.stages > 1 + 2 * index
    }

    /// Whether the stage that normalises all maps of a block is frozen: the transition after it, or
    /// the last BN.
    pub const fn reader(self, index: usize) -> bool {
        self.stages > 2 + 2 * index
    }

    /// Whether the stage before a block is frozen: the stem, or the transition.
    pub const fn input(self, index: usize) -> bool {
        self.stages > 2 * index
    }

    /// Whether the last BN is.
    pub fn features(self, plan: &Plan) -> bool {
        self.stages > 2 * plan.blocks().len()
    }

    /// Whether the classifier is frozen, and so all stages are.
    pub fn classifier(self, plan: &Plan) -> bool {
        self.stages > 2 * plan.blocks().len() + 1
    }

    /// The number of a network's blocks that are frozen.
    pub fn blocks(self, plan: &Plan) -> usize {
        (self.stages / 2).min(plan.blocks().len())
    }

    /// The number of a network's blocks that are frozen together with the stage that normalises all their maps.
    pub fn readers(self, plan: &Plan) -> usize {
        (self.stages.saturating_sub(1) / 2).min(plan.blocks().len())
    }
}

/// The tensors that are frozen besides the first stages, as ranges of parameters in their order.
///
/// A frozen tensor has no gradient. A frozen BN normalises with its running statistics in training
/// too. Each tensor is frozen as a whole, and a BN's scale with its bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrozenTensors<'a>(&'a [Range<usize>]);

impl<'a> FrozenTensors<'a> {
    /// Those in these ranges, which follow one another with gaps between them.
    pub const fn in_ranges(ranges: &'a [Range<usize>]) -> Self {
        Self(ranges)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Whether a tensor of parameters is frozen.
    pub fn has(self, tensor: Span) -> bool {
        let ends_before = |range: &Range<usize>| range.end <= tensor.start;
        let next = self.0.get(self.0.partition_point(ends_before));
        next.is_some_and(|range| range.start <= tensor.start)
    }

    /// Whether a BN is frozen.
    pub fn has_norm(self, norm: &NormTensors) -> bool {
        self.has(norm.scale)
    }

    /// The first parameter from `start` on that trains.
    pub fn first_trained(self, start: usize) -> usize {
        let tensor = Span { start, len: 1 };
        let ends_before = |range: &Range<usize>| range.end <= start;
        if self.has(tensor) {
            self.0[self.0.partition_point(ends_before)].end
        } else {
            start
        }
    }
}

impl Plan {
    /// The stages in their order, by their names in torchvision's checkpoints; the stem's BN belongs
    /// to the stem.
    pub fn stages(&self) -> Vec<String> {
        let mut names = vec!["features.conv0".to_string()];
        for number in 1..=self.blocks().len() {
            names.push(format!("features.denseblock{number}"));
            if number < self.blocks().len() {
                names.push(format!("features.transition{number}"));
            }
        }
        names.push("features.norm5".into());
        names.push("classifier".into());
        names
    }

    /// Multiply-adds of a training step with one image: those of the forward pass, from the first
    /// weight that trains on the same number for the gradients of the maps, and for weights that
    /// train again for theirs.
    pub fn step_multiply_adds(&self, stages: Frozen, frozen: FrozenTensors<'_>) -> u64 {
        let tensors = self.tensors();
        let (height, width) = self.stem().convolved_size();
        // Each weight, and how often an image multiplies with it.
        let mut weights = vec![(tensors.stem.conv.weight, height * width)];
        for (index, block) in self.blocks().iter().enumerate() {
            for layer in &tensors.blocks[index] {
                let narrow = layer.narrow.map(|(conv, _)| conv);
                let own = narrow.into_iter().chain([layer.conv]);
                weights.extend(own.map(|conv| (conv.weight, block.pixels())));
            }
            if let Some(own) = tensors.transitions.get(index) {
                weights.push((own.conv.weight, self.transitions()[index].pixels()));
            }
        }
        weights.push((tensors.head.weight, 1));
        let [own, _] = self.trainable(stages);
        let start = frozen.first_trained(own.start);
        let counts = weights.into_iter().map(|(weight, times)| {
            let passes = 1
                + u128::from(weight.start >= start)
                + u128::from(weight.start >= start && !frozen.has(weight));
            passes * weight.len as u128 * times as u128
        });
        // The plan's own count fits, so this saturates at most.
        u64::try_from(counts.sum::<u128>()).unwrap_or(u64::MAX)
    }

    /// The parameters and the running statistics that train: those of the first stage that is not
    /// frozen, and all after them.
    pub fn trainable(&self, frozen: Frozen) -> [Range<usize>; 2] {
        if frozen.stages == 0 {
            return [0..self.parameter_count(), 0..self.running_count()];
        }
        let tensors = self.tensors();
        let mut start = [0, 0];
        let head = &tensors.head;
        let last = 2 * self.blocks().len();
        for stage in 0..frozen.stages.min(last + 1) {
            // The end of the frozen stages.
            if stage == last {
                start = [head.weight.start, head.norm.running().end];
            } else if stage == 0 {
                let conv = tensors.stem.conv.weight.range().end;
                start = match tensors.stem.norm {
                    Some(norm) => [norm.trainable().end, norm.running().end],
                    None => [conv, 0],
                };
            } else if stage % 2 == 1 {
                for layer in &tensors.blocks[stage / 2] {
                    let norm = layer.narrow.map_or(layer.norm1, |(_, norm)| norm);
                    start = [layer.conv.weight.range().end, norm.running().end];
                }
            } else {
                let own = &tensors.transitions[stage / 2 - 1];
                start = [own.conv.weight.range().end, own.norm.running().end];
            }
        }
        [
            start[0]..self.parameter_count(),
            start[1]..self.running_count(),
        ]
    }
}

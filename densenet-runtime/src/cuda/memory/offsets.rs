//! The offsets of a plan's parameters, and of the numbers computed from them: packed weights, BN as
//! multiply-adds.

use std::ops::Range;

use super::super::program::tile::{LONGEST_VECTOR, PACKED};
use crate::plan::{ConvTensor, FrozenTensors, LayerTensors, NormTensors, Plan, Span};

/// The offsets of a BN's parameters, running statistics and multiply-add.
#[derive(Clone, Copy, Debug, Default)]
pub struct NormAt {
    pub channels: usize,
    /// Among the parameters; beta follows at once.
    pub gamma: usize,
    /// Among the running statistics: means, then variances.
    pub running: usize,
    /// Among the multiply-adds: scales, then shifts.
    pub affine: usize,
}

impl NormAt {
    pub fn beta(&self) -> usize {
        self.gamma + self.channels
    }
}

/// The weight of a convolution, which is packed at the start of a pass.
#[derive(Clone, Copy, Debug)]
pub struct WeightAt {
    /// Among the parameters: maps x channels x taps.
    pub parameter: usize,
    /// Among the packed weights: taps x maps x channels.
    pub packed: usize,
    pub channels: usize,
    pub taps: usize,
    pub maps: usize,
}

impl WeightAt {
    /// The parameter after it.
    pub fn end(self) -> usize {
        self.parameter + self.maps * self.channels * self.taps
    }

    /// The number of blocks that pack it.
    pub fn blocks(self) -> usize {
        (self.maps * self.channels).div_ceil(PACKED / self.taps)
    }
}

/// The offsets of a dense layer's parameters.
#[derive(Clone, Copy, Debug)]
pub struct LayerAt {
    pub norm1: NormAt,
    /// The 1x1 convolution and the BN after it, in a bottleneck layer.
    pub narrow: Option<(WeightAt, NormAt)>,
    /// The 3x3 convolution.
    pub conv: WeightAt,
}

/// Words of the table of weights for each weight.
pub const WEIGHT_WORDS: usize = 6;

/// The offsets of all parameters of a plan.
#[derive(Clone, Debug)]
pub struct Offsets {
    pub stem: usize,
    pub stem_norm: NormAt,
    pub blocks: Vec<Vec<LayerAt>>,
    pub transitions: Vec<(NormAt, WeightAt)>,
    pub norm: NormAt,
    pub classifier: usize,
    pub bias: usize,
    /// Values of all packed weights, and of all multiply-adds, with what aligns them.
    pub packed: usize,
    pub affine: usize,
}

impl Offsets {
    /// For each stage in the order of the backward pass: the first of its parameters that train, and
    /// their number. A stage's parameters follow those of the stages before it.
    pub fn stages(&self, trainable: &Range<usize>) -> Vec<(usize, usize)> {
        let parameters = trainable.end;
        let mut firsts = vec![self.norm.gamma];
        for (index, block) in self.blocks.iter().enumerate().rev() {
            // A block without layers has no parameters.
            let after = firsts.last().copied().unwrap_or(parameters);
            firsts.push(block.first().map_or(after, |layer| layer.norm1.gamma));
            if let Some(before) = index.checked_sub(1) {
                firsts.push(self.transitions[before].0.gamma);
            }
        }
        firsts.push(0);
        let ends = [parameters].into_iter().chain(firsts.clone());
        let stages = firsts.iter().zip(ends);
        stages
            .map(|(&from, until)| {
                let from = from.max(trainable.start);
                (from, until.saturating_sub(from))
            })
            .collect()
    }
}

/// Assigns offsets to what is computed from tensors: packed weights, and BN as multiply-adds.
#[derive(Default)]
struct Cursor {
    affine: usize,
    packed: usize,
}

impl Cursor {
    /// A convolution whose weight will be packed.
    fn convolution(&mut self, conv: ConvTensor) -> WeightAt {
        let at = WeightAt {
            parameter: conv.weight.start,
            packed: self.packed,
            channels: conv.channels,
            taps: conv.kernel * conv.kernel,
            maps: conv.maps,
        };
        self.packed += conv.weight.len.next_multiple_of(LONGEST_VECTOR);
        at
    }

    fn norm(&mut self, norm: NormTensors) -> NormAt {
        let at = NormAt {
            channels: norm.channels(),
            gamma: norm.scale.start,
            running: norm.mean.start,
            affine: self.affine,
        };
        self.affine += (2 * at.channels).next_multiple_of(LONGEST_VECTOR);
        at
    }

    fn layer(&mut self, layer: &LayerTensors) -> LayerAt {
        LayerAt {
            norm1: self.norm(layer.norm1),
            narrow: layer
                .narrow
                .map(|(conv, norm)| (self.convolution(conv), self.norm(norm))),
            conv: self.convolution(layer.conv),
        }
    }
}

impl Offsets {
    pub fn new(plan: &Plan) -> Self {
        let tensors = plan.tensors();
        let mut cursor = Cursor::default();
        let stem_norm = tensors.stem.norm.map(|norm| cursor.norm(norm));
        let blocks = tensors.blocks.iter();
        let blocks = blocks.map(|layers| layers.iter().map(|layer| cursor.layer(layer)).collect());
        let blocks = blocks.collect();
        let transitions = tensors.transitions.iter();
        let transitions =
            transitions.map(|own| (cursor.norm(own.norm), cursor.convolution(own.conv)));
        let transitions = transitions.collect();
        let head = &tensors.head;
        Self {
            stem: tensors.stem.conv.weight.start,
            stem_norm: stem_norm.unwrap_or_default(),
            blocks,
            transitions,
            norm: cursor.norm(head.norm),
            classifier: head.weight.start,
            bias: head.bias.start,
            packed: cursor.packed,
            affine: cursor.affine,
        }
    }

    /// The parameters that kernels read directly, not packed or as a multiply-add: the stem's
    /// weight; the classifier's weight and bias.
    pub fn read_alone(&self, plan: &Plan) -> [Range<usize>; 2] {
        let stem = self.stem..self.stem + plan.stem().weight_len();
        [stem, self.classifier..self.bias + plan.classes()]
    }

    /// The same, if there are no other parameters.
    pub fn of_read_alone(self, plan: &Plan) -> Self {
        let [stem, _] = self.read_alone(plan);
        Self {
            stem: 0,
            classifier: stem.len(),
            bias: stem.len() + self.bias - self.classifier,
            ..self
        }
    }

    /// All BN.
    pub fn norms(&self) -> impl Iterator<Item = NormAt> {
        let layers = self.blocks.iter().flatten();
        let of_layers = layers.flat_map(|layer| {
            let narrow = layer.narrow.map(|(_, norm)| norm);
            narrow.into_iter().chain([layer.norm1])
        });
        let transitions = self.transitions.iter().map(|&(norm, _)| norm);
        let ends = [self.stem_norm, self.norm];
        ends.into_iter().chain(of_layers).chain(transitions)
    }

    /// The running statistics that training moves, in their order: those from `first` on, without
    /// those of frozen BNs.
    pub fn moving(&self, first: usize, frozen: FrozenTensors<'_>) -> Vec<Range<usize>> {
        let trains = |norm: &NormAt| {
            let len = norm.channels;
            let start = norm.gamma;
            len > 0 && norm.running >= first && !frozen.has(Span { start, len })
        };
        let mut norms: Vec<NormAt> = self.norms().filter(trains).collect();
        norms.sort_unstable_by_key(|norm| norm.running);
        let mut moving: Vec<Range<usize>> = Vec::new();
        for norm in norms {
            let end = norm.running + 2 * norm.channels;
            match moving.last_mut() {
                Some(last) if last.end == norm.running => last.end = end,
                _ => moving.push(norm.running..end),
            }
        }
        moving
    }

    /// The weights that are packed.
    pub fn packed_weights(&self) -> impl Iterator<Item = WeightAt> {
        let layers = self.blocks.iter().flatten();
        let of_layers = layers.flat_map(|layer| {
            let narrow = layer.narrow.map(|(weight, _)| weight);
            narrow.into_iter().chain([layer.conv])
        });
        of_layers.chain(self.transitions.iter().map(|&(_, weight)| weight))
    }

    /// The table that `weights.cu` reads: [`WEIGHT_WORDS`] for each weight.
    pub fn weight_table(&self) -> Vec<i32> {
        let word = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
        let mut block = 0;
        let mut words = |own: WeightAt| -> [usize; WEIGHT_WORDS] {
            let first = block;
            block += own.blocks();
            let (from, into) = (own.parameter, own.packed);
            [from, into, own.channels, own.taps, own.maps, first]
        };
        self.packed_weights()
            .flat_map(|own| words(own).map(word))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::plan::{BlockSpec, Frozen, Ratio, Spec, StemKind};

    fn plan() -> Plan {
        let block = BlockSpec {
            layers: 2,
            growth: 3,
        };
        let spec = Spec {
            blocks: vec![block; 2],
            theta: Ratio::ONE,
            bottleneck: None,
            stem: StemKind::Cifar,
            init: 6,
            input: [3, 8, 8],
            classes: 10,
            dropout: 0.0,
        };
        spec.plan().unwrap()
    }

    #[test]
    fn statistics_of_what_is_frozen_do_not_move() {
        let plan = plan();
        let offsets = Offsets::new(&plan);
        let count = plan.running_count();
        let moving = |first, frozen: &[Range<usize>]| {
            offsets.moving(first, FrozenTensors::in_ranges(frozen))
        };
        let whole = moving(0, &[]);
        assert_eq!(whole, slice::from_ref(&(0..count)));
        // A BN, and the weight after it.
        let layer = &offsets.blocks[0][1];
        let statistics = layer.norm1.running..layer.norm1.running + 2 * layer.norm1.channels;
        let frozen = layer.norm1.gamma..layer.conv.end();
        let frozen = slice::from_ref(&frozen);
        let rest = [0..statistics.start, statistics.end..count];
        assert_eq!(moving(0, frozen), rest);
        assert_eq!(moving(statistics.start, frozen), rest[1..]);
        let all = 0..plan.parameter_count();
        assert_eq!(moving(0, slice::from_ref(&all)), []);
    }

    #[test]
    fn stages_have_all_gradients_once_from_the_last_on() {
        let plan = plan();
        for frozen in 0..plan.stages().len() {
            let [trainable, _] = plan.trainable(Frozen::first(frozen));
            let stages = Offsets::new(&plan).stages(&trainable);
            assert_eq!(stages.len(), 5, "head, block, transition, block, stem");
            let mut until = plan.parameter_count();
            // The head is two of a plan's stages.
            for (from, count) in &stages[..5 - frozen.min(4)] {
                assert_eq!(from + count, until);
                assert!(*count > 0);
                until = *from;
            }
            assert_eq!(until, trainable.start);
            let rest = &stages[5 - frozen.min(4)..];
            assert!(rest.iter().all(|&(_, count)| count == 0), "{rest:?}");
        }
    }
}

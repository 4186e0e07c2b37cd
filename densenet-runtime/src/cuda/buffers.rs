//! The buffers of a plan, and where its parameters lie in them.

use super::arena::{Layout, Slot};
use super::slices::Slicing;
use super::tiles::ROWS;
use crate::plan::{ConvTensor, LayerTensors, NormTensors, Plan, Precision, Recompute};

/// Values that vectors of [`super::tiles::vector`] may have: where counts are multiples of such
/// a vector, so is what is aligned to this.
const VECTOR: usize = 8;

/// A BN: where its parameters, running statistics and multiply-add lie.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NormAt {
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
pub(super) struct WeightAt {
    /// Among the parameters: maps x channels x taps.
    pub parameter: usize,
    /// Among the packed weights: taps x maps x channels.
    pub packed: usize,
    pub channels: usize,
    pub taps: usize,
    pub maps: usize,
}

/// Where a dense layer's parameters lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerAt {
    pub norm1: NormAt,
    /// The 1x1 convolution and the BN behind it, in a bottleneck layer.
    pub narrow: Option<(WeightAt, NormAt)>,
    /// The 3x3 convolution.
    pub conv: WeightAt,
}

/// Words of the kernels' `Scalars`: those of a step, those of the descent, and whether a loss was
/// not finite.
pub(super) const STEP_WORDS: usize = 5;
pub(super) const DESCENT_WORDS: usize = 4;
pub(super) const SCALAR_WORDS: usize = STEP_WORDS + DESCENT_WORDS + 1;

/// Where all parameters of a plan lie.
#[derive(Clone, Debug)]
pub(super) struct Places {
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

impl Places {
    /// Of each stage of the backward pass, in its order: where its gradients begin, and how many
    /// they are. A stage's parameters lie behind those of the stages before it.
    pub fn stages(&self, parameters: usize) -> Vec<(usize, usize)> {
        let mut firsts = vec![self.norm.gamma];
        for (index, block) in self.blocks.iter().enumerate().rev() {
            // A block without layers has nothing of its own.
            let behind = firsts.last().copied().unwrap_or(parameters);
            firsts.push(block.first().map_or(behind, |layer| layer.norm1.gamma));
            if let Some(before) = index.checked_sub(1) {
                firsts.push(self.transitions[before].0.gamma);
            }
        }
        firsts.push(0);
        let ends = [parameters].into_iter().chain(firsts.clone());
        let stages = firsts.iter().zip(ends);
        stages.map(|(&from, until)| (from, until - from)).collect()
    }
}

/// Gives what is made of tensors its place: packed weights, and BN as multiply-adds.
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
        self.packed += conv.weight.len.next_multiple_of(VECTOR);
        at
    }

    fn norm(&mut self, norm: NormTensors) -> NormAt {
        let at = NormAt {
            channels: norm.channels(),
            gamma: norm.scale.start,
            running: norm.mean.start,
            affine: self.affine,
        };
        self.affine += (2 * at.channels).next_multiple_of(VECTOR);
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

impl Places {
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

    /// The weights that are packed.
    pub fn packed_weights(&self) -> impl Iterator<Item = WeightAt> {
        let layers = self.blocks.iter().flatten();
        let of_layers = layers.flat_map(|layer| {
            let narrow = layer.narrow.map(|(weight, _)| weight);
            narrow.into_iter().chain([layer.conv])
        });
        of_layers.chain(self.transitions.iter().map(|&(_, weight)| weight))
    }

    /// What `weights.cu` is told of each: five words.
    pub fn weight_table(&self) -> Vec<i32> {
        let word = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
        self.packed_weights()
            .flat_map(|own| [own.parameter, own.packed, own.channels, own.taps, own.maps].map(word))
            .collect()
    }
}

/// The buffers of a block.
pub(super) struct BlockSlots {
    /// Feature maps: pixels x all channels, stored in the executor's [`Precision`]; so are
    /// the bottleneck maps, and all gradients of maps.
    pub maps: Slot,
    /// Mean, variance, inverse deviation of each channel.
    pub statistics: Slot,
    /// Sums of g, and of g times the normalised value, of each channel.
    pub totals: Slot,
    /// Outputs of the 1x1 convolutions, a buffer a layer; one for all where they are recomputed.
    pub narrow: Vec<Slot>,
    /// Their statistics, a buffer a layer.
    pub narrow_statistics: Vec<Slot>,
}

/// All buffers of an executor.
pub(super) struct Slots {
    pub parameters: Slot,
    pub gradients: Slot,
    pub momentum: Slot,
    pub running: Slot,
    /// The running statistics before the step at hand.
    pub running_before: Slot,
    pub scalars: Slot,
    /// Weights as operands of products, and where each comes from.
    pub packed: Slot,
    pub weight_table: Slot,
    /// BN as multiply-adds, of all consumers.
    pub affine: Slot,
    /// Images as they came: one batch is computed while the next one comes in.
    pub raw: [Slot; 2],
    /// Their normalisation: means, deviations.
    pub pixel_norm: Slot,
    /// Images, NHWC.
    pub images: Slot,
    pub labels: Slot,
    /// Loss, top 1 and top 5 of each image, f64.
    pub results: Slot,
    pub convolved: Slot,
    pub choice: Slot,
    pub stem_statistics: Slot,
    pub stem_totals: Slot,
    pub stem_undo: Slot,
    pub blocks: Vec<BlockSlots>,
    /// Gradient of a block's maps, behind their BN.
    pub gradient: Slot,
    pub handover: Slot,
    /// Gradient of a layer's bottleneck maps, and their two sums.
    pub narrow_gradient: Slot,
    pub narrow_totals: Slot,
    /// Gradient of a layer's new maps.
    pub fresh: Slot,
    pub features: Slot,
    pub feature_gradient: Slot,
    pub logits: Slot,
    pub logit_gradient: Slot,
    /// Tiles' moments or sums.
    pub partial: Slot,
    /// Slices' shares of a weight's gradient.
    pub shares: Slot,
}

impl Slots {
    /// Lays out what training with `batch` images needs.
    pub fn new(
        plan: &Plan,
        batch: usize,
        recompute: Recompute,
        precision: Precision,
        layout: &mut Layout,
    ) -> Self {
        let sizes = plan.buffers(recompute);
        let places = Places::new(plan);
        let stem = plan.stem();
        let count = plan.parameter_count();
        let features = plan.features();
        let widest = plan
            .blocks()
            .iter()
            .filter_map(|block| block.bottleneck)
            .max()
            .unwrap_or(0);
        let recomputed = plan.recomputed_blocks(recompute);
        let turns = plan.recomputed_bottleneck(recompute);
        // The layers of all blocks that recompute their maps take turns in one buffer.
        let one = (turns > 0).then(|| layout.maps(batch * turns, precision));
        let blocks = plan.blocks().iter().enumerate().map(|(index, block)| {
            let pixels = batch * block.pixels();
            let maps = block.bottleneck.unwrap_or(0);
            let narrow: Vec<Slot> = if maps == 0 {
                Vec::new()
            } else if index < recomputed {
                one.into_iter().collect()
            } else {
                (0..block.layers)
                    .map(|_| layout.maps(pixels * maps, precision))
                    .collect()
            };
            BlockSlots {
                maps: layout.maps(pixels * block.output(), precision),
                statistics: layout.floats(3 * block.output()),
                totals: layout.floats(2 * block.output()),
                narrow,
                narrow_statistics: (0..block.layers).map(|_| layout.floats(3 * maps)).collect(),
            }
        });
        let blocks: Vec<_> = blocks.collect();
        let (partial, shares) = scratch(plan, batch);
        Self {
            blocks,
            parameters: layout.floats(count),
            gradients: layout.floats(count),
            momentum: layout.floats(count),
            running: layout.floats(plan.running_count()),
            running_before: layout.floats(plan.running_count()),
            scalars: layout.floats(SCALAR_WORDS),
            packed: layout.maps(places.packed, precision),
            weight_table: layout.floats(5 * places.packed_weights().count()),
            affine: layout.floats(places.affine),
            raw: [(); 2].map(|()| layout.floats(batch * sizes.input)),
            pixel_norm: layout.floats(2 * stem.channels),
            images: layout.maps(batch * sizes.input, precision),
            labels: layout.floats(batch),
            results: layout.bytes(24 * batch),
            convolved: layout.maps(batch * sizes.stem, precision),
            choice: layout.bytes(batch * sizes.pool_choice),
            stem_statistics: layout.floats(3 * stem.maps),
            stem_totals: layout.floats(2 * stem.maps),
            stem_undo: layout.floats(4 * stem.maps),
            gradient: layout.maps(batch * sizes.gradient, precision),
            handover: layout.maps(batch * sizes.handover, precision),
            narrow_gradient: layout.maps(batch * sizes.bottleneck_gradient, precision),
            narrow_totals: layout.floats(2 * widest),
            fresh: layout.maps(batch * sizes.fresh, precision),
            features: layout.floats(batch * features),
            feature_gradient: layout.floats(batch * features),
            logits: layout.floats(batch * plan.classes()),
            logit_gradient: layout.floats(batch * plan.classes()),
            partial: layout.floats(partial),
            shares: layout.floats(shares),
        }
    }
}

/// The most f32 of tiles' sums, and of slices' shares.
fn scratch(plan: &Plan, batch: usize) -> (usize, usize) {
    let (mut partial, mut shares) = (0, 0);
    let mut tiles = |pixels: usize, channels: usize| {
        partial = partial.max(2 * (batch * pixels).div_ceil(ROWS) * channels);
    };
    let mut weight = |pixels: usize, own: Slicing| {
        shares = shares.max(own.most(batch * pixels) * own.weight);
    };
    let stem = plan.stem();
    let (height, width) = stem.convolved_size();
    tiles(height * width, stem.maps);
    let patch = stem.weight_len() / stem.maps;
    weight(height * width, Slicing::stem(patch, stem.maps));
    for block in plan.blocks().iter() {
        tiles(
            block.pixels(),
            block.output().max(block.bottleneck.unwrap_or(0)),
        );
        for layer in block.iter() {
            let read = layer.bottleneck.unwrap_or(layer.input);
            weight(block.pixels(), Slicing::spatial(block, read));
            if let Some(maps) = layer.bottleneck {
                weight(block.pixels(), Slicing::pointwise(layer.input, maps));
            }
        }
    }
    for transition in plan.transitions().iter() {
        tiles(transition.pixels(), transition.input.max(transition.output));
        let own = Slicing::transition(transition.input, transition.output);
        weight(transition.pixels(), own);
    }
    (partial, shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{BlockSpec, Ratio, Spec, StemKind};

    #[test]
    fn stages_have_all_gradients_once_from_the_last_on() {
        let block = BlockSpec {
            layers: 2,
            growth: 3,
        };
        let plan = Spec {
            blocks: vec![block; 2],
            theta: Ratio::ONE,
            bottleneck: None,
            stem: StemKind::Cifar,
            init: 6,
            input: [3, 8, 8],
            classes: 10,
            dropout: 0.0,
        };
        let plan = plan.plan().unwrap();
        let stages = Places::new(&plan).stages(plan.parameter_count());
        assert_eq!(stages.len(), 5, "head, block, transition, block, stem");
        let mut until = plan.parameter_count();
        for (from, count) in stages {
            assert_eq!(from + count, until);
            assert!(count > 0);
            until = from;
        }
        assert_eq!(until, 0);
    }
}

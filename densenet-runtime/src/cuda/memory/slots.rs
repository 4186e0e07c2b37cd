//! The buffers of a plan.

use std::ops::Range;

use super::super::program::slices::Slicing;
use super::super::program::tile::tiles;
use super::super::program::{GROUP_WORDS, NORM_BLOCKS, SCALAR_WORDS};
use super::layout::{Layout, Slot};
use super::offsets::{Offsets, WEIGHT_WORDS};
use crate::plan::{Block as PlanBlock, Frozen, Outputs, Plan, Precision, Training};

/// How feature maps are kept.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// The type that they are stored in.
    pub precision: Precision,
    /// What is kept beside them.
    pub training: Training,
    /// Whether nothing is trained or evaluated: there are no gradients and no targets, and the only
    /// parameters are those that kernels read directly ([`Offsets::read_alone`]).
    pub inference: bool,
    /// The outputs beside logits and features.
    pub outputs: Outputs,
}

impl Stored {
    /// What a forward pass with running statistics needs: all stages are frozen.
    pub fn for_inference(plan: &Plan, precision: Precision, outputs: Outputs) -> Self {
        Self {
            precision,
            training: Training {
                frozen: Frozen::all(plan),
                ..Training::default()
            },
            inference: true,
            outputs,
        }
    }
}

/// The most groups of parameters: each tensor has one of its own.
pub fn most_groups(plan: &Plan) -> usize {
    let parameters = plan.parameters();
    let trainable = parameters.iter().filter(|own| own.role.is_trainable());
    trainable.count()
}

/// The number of the buffer that has a block's maps. Frozen blocks alternate between the first two,
/// so that a block and the next one never share one.
fn maps_buffer(plan: &Plan, frozen: Frozen, index: usize) -> usize {
    let blocks = frozen.blocks(plan);
    match index.checked_sub(blocks) {
        None => index % 2,
        Some(trainable) => blocks.min(2) + trainable,
    }
}

/// The sizes of these buffers, each that of its largest block; `size` is that of a block.
fn maps_buffers(plan: &Plan, frozen: Frozen, size: impl Fn(&PlanBlock) -> usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    for (index, block) in plan.blocks().iter().enumerate() {
        let buffer = maps_buffer(plan, frozen, index);
        sizes.resize(sizes.len().max(buffer + 1), 0);
        sizes[buffer] = sizes[buffer].max(size(block));
    }
    sizes
}

/// The number of f32 that kernels leave for the next ones. All stages share this memory, so it is
/// the most that any stage needs. What transitions pool is kept for the backward pass.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    partial: usize,
    shares: usize,
    parts: usize,
    pooled: Vec<usize>,
}

impl Scratch {
    /// For two sums, or moments, of each channel and each tile of this many pixels.
    pub fn sums(&mut self, pixels: usize, channels: usize) {
        self.partial = self.partial.max(2 * tiles(pixels) * channels);
    }

    /// For the shares of a weight's gradient.
    pub fn shares(&mut self, pixels: usize, slicing: Slicing) {
        self.shares = self.shares.max(slicing.most(pixels) * slicing.weight);
    }

    /// For `count` sums of blocks that share the depth of a product, which inference needs, too.
    pub fn parts(&mut self, count: usize) {
        self.parts = self.parts.max(count);
    }

    /// For the pooled values of the next transition.
    pub fn pooled(&mut self, values: usize) {
        self.pooled.push(values);
    }
}

/// The buffers of a block.
pub struct BlockSlots {
    /// Feature maps: pixels x all channels, stored in the executor's precision; so are
    /// the bottleneck maps, and all gradients of maps.
    pub maps: Slot,
    /// Mean, variance, inverse standard deviation of each channel.
    pub statistics: Slot,
    /// Sums of g, and of g times the normalised value, of each channel.
    pub totals: Slot,
    /// Outputs of the 1x1 convolutions, a buffer for each layer; one for all if they are recomputed.
    pub narrow: Vec<Slot>,
    /// Their statistics, a buffer a layer.
    pub narrow_statistics: Vec<Slot>,
}

/// All buffers of an executor, or of the frozen form. Buffers that the frozen form does not use are empty.
pub struct Slots {
    /// What trains, of the parameters and of the running statistics. Only that has gradients and moments.
    pub trainable: [Range<usize>; 2],
    pub parameters: Slot,
    pub gradients: Slot,
    pub momentum: Slot,
    /// Of no size where they are not kept.
    pub second_moments: Slot,
    pub average: Slot,
    pub average_running: Slot,
    /// Groups of parameters with the same shares: where they begin, and their shares.
    pub groups: Slot,
    /// Sums of squares of gradients.
    pub norm_sums: Slot,
    pub running: Slot,
    /// The running statistics before the current step.
    pub running_before: Slot,
    pub scalars: Slot,
    /// Weights as operands of products, and where each comes from.
    pub packed: Slot,
    pub weight_table: Slot,
    /// BN as multiply-adds, of all consumers.
    pub affine: Slot,
    /// What a backward pass takes for gamma of frozen BNs, of all consumers.
    pub effective: Slot,
    /// Raw images, twice: one batch is computed while the next one is copied in.
    pub raw: [Slot; 2],
    /// Their normalisation: means, standard deviations.
    pub pixel_norm: Slot,
    /// Images, NHWC.
    pub images: Slot,
    /// What the loss is a mean over.
    pub loss_divisor: Slot,
    /// The label of each image. Targets of each class go where the gradient of the logits will be.
    pub labels: Slot,
    /// The weight of each class, then that of each class that applies.
    pub loss_weights: Slot,
    /// The loss of each image and two counts (`head.cu`), f64.
    pub results: Slot,
    pub convolved: Slot,
    pub choice: Slot,
    pub stem_statistics: Slot,
    pub stem_totals: Slot,
    pub stem_undo: Slot,
    pub blocks: Vec<BlockSlots>,
    /// The operand of the products of each transition, if it is made before them.
    pub pooled: Vec<Slot>,
    /// Gradient of a block's maps, after their BN.
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
    /// The classes whose maps are wanted of each image, and these maps.
    pub mapped: Slot,
    pub class_maps: Slot,
    /// The last maps after BN and ReLU, and those that leave each block, channels first, in f32; if
    /// they are wanted.
    pub last_maps: Option<Slot>,
    pub block_maps: Vec<Slot>,
    pub logit_gradient: Slot,
    /// Tiles' moments or sums.
    pub partial: Slot,
    /// Slices' shares of a weight's gradient; in the forward pass, sums of blocks that share a
    /// product's depth.
    pub shares: Slot,
}

impl Slots {
    /// Lays out the buffers for passes with `batch` images.
    pub fn new(
        plan: &Plan,
        batch: usize,
        stored: Stored,
        scratch: Scratch,
        layout: &mut Layout,
    ) -> Self {
        let Stored {
            precision,
            training,
            inference,
            outputs,
        } = stored;
        let kept = |count, is_kept| if is_kept { count } else { 0 };
        let trained = |count| kept(count, !inference);
        let frozen = training.frozen;
        let sizes = plan.buffers(training);
        // Frozen stages run on the same maps as others.
        let of_all = plan.buffers(Training::default());
        let offsets = Offsets::new(plan);
        let trainable = plan.trainable(frozen);
        let stem = plan.stem();
        let count = plan.parameter_count();
        let (running, norms) = (trained(plan.running_count()), trained(stem.maps));
        let features = plan.features();
        let widest = plan
            .blocks()
            .iter()
            .filter_map(|block| block.bottleneck)
            .max()
            .unwrap_or(0);
        // The layers of all blocks that recompute their maps or are frozen take turns in one buffer.
        let take_turns = plan
            .recomputed_blocks(training.recompute)
            .max(frozen.blocks(plan));
        let turns = plan.blocks()[..take_turns]
            .iter()
            .map(PlanBlock::bottleneck_maps);
        let turns = turns.max().unwrap_or(0);
        let one = (turns > 0).then(|| layout.maps(batch * turns, precision));
        let maps_of = maps_buffers(plan, frozen, |block| {
            batch * block.pixels() * block.output()
        });
        let maps_of: Vec<Slot> = maps_of
            .into_iter()
            .map(|count| layout.maps(count, precision))
            .collect();
        let blocks = plan.blocks().iter().enumerate().map(|(index, block)| {
            let pixels = batch * block.pixels();
            let maps = block.bottleneck.unwrap_or(0);
            let narrow: Vec<Slot> = if maps == 0 {
                Vec::new()
            } else if index < take_turns {
                one.into_iter().collect()
            } else {
                (0..block.layers)
                    .map(|_| layout.maps(pixels * maps, precision))
                    .collect()
            };
            BlockSlots {
                maps: maps_of[maps_buffer(plan, frozen, index)],
                statistics: layout.floats(trained(3 * block.output())),
                totals: layout.floats(trained(2 * block.output())),
                narrow,
                narrow_statistics: (0..block.layers)
                    .map(|_| layout.floats(trained(3 * maps)))
                    .collect(),
            }
        });
        let blocks: Vec<_> = blocks.collect();
        // Without a backward pass, the transitions take turns.
        let pooled = match inference {
            true => {
                let most = scratch.pooled.iter().copied().max().unwrap_or(0);
                vec![layout.maps(most, precision); scratch.pooled.len()]
            }
            false => (scratch.pooled.iter())
                .map(|&values| layout.maps(values, precision))
                .collect(),
        };
        let parameters = match inference {
            true => offsets.read_alone(plan).iter().map(Range::len).sum(),
            false => count,
        };
        Self {
            blocks,
            parameters: layout.floats(parameters),
            gradients: layout.floats(trained(trainable[0].len())),
            momentum: layout.floats(trained(trainable[0].len())),
            second_moments: layout.floats(kept(trainable[0].len(), training.second_moments)),
            average: layout.floats(kept(count, training.average)),
            average_running: layout.floats(kept(plan.running_count(), training.average)),
            groups: layout.floats(trained(GROUP_WORDS * most_groups(plan))),
            norm_sums: layout.bytes(trained(8 * NORM_BLOCKS)),
            running: layout.floats(running),
            running_before: layout.floats(running),
            scalars: layout.floats(SCALAR_WORDS),
            packed: layout.maps(offsets.packed, precision),
            weight_table: layout.floats(trained(WEIGHT_WORDS * offsets.packed_weights().count())),
            affine: layout.floats(offsets.affine),
            effective: layout.floats(trained(offsets.affine / 2)),
            raw: [
                layout.floats(batch * of_all.input),
                layout.floats(trained(batch * of_all.input)),
            ],
            pixel_norm: layout.floats(2 * stem.channels),
            images: layout.maps(batch * of_all.input, precision),
            loss_divisor: layout.floats(1),
            labels: layout.floats(trained(batch)),
            loss_weights: layout.floats(trained(2 * plan.classes())),
            results: layout.bytes(trained(24 * batch)),
            convolved: layout.maps(batch * of_all.stem, precision),
            choice: layout.bytes(batch * of_all.pool_choice),
            stem_statistics: layout.floats(3 * norms),
            stem_totals: layout.floats(2 * norms),
            stem_undo: layout.floats(4 * norms),
            pooled,
            gradient: layout.maps(batch * sizes.gradient, precision),
            handover: layout.maps(batch * sizes.handover, precision),
            narrow_gradient: layout.maps(batch * sizes.bottleneck_gradient, precision),
            narrow_totals: layout.floats(trained(2 * widest)),
            fresh: layout.maps(trained(batch * sizes.fresh), precision),
            features: layout.floats(batch * features),
            feature_gradient: layout.floats(trained(batch * features)),
            logits: layout.floats(batch * plan.classes()),
            mapped: layout.floats(batch * outputs.most_class_maps(plan)),
            class_maps: layout.floats(batch * outputs.most_class_maps(plan) * plan.head().pixels()),
            last_maps: outputs
                .last_maps
                .then(|| layout.floats(batch * features * plan.head().pixels())),
            block_maps: (plan.blocks().iter())
                .filter(|_| outputs.block_maps)
                .map(|block| layout.floats(batch * block.output() * block.pixels()))
                .collect(),
            logit_gradient: layout.floats(trained(batch * plan.classes())),
            partial: layout.floats(trained(scratch.partial)),
            shares: layout.floats(trained(scratch.shares).max(scratch.parts)),
            trainable,
        }
    }
}

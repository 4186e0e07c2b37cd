//! The activations of a network, allocated once.

use super::kernel::normal::Affine;
use super::memory::{Memory, OutOfMemory, zeros};
use super::stage::block::{BlockState, Bottlenecks};
use super::stage::stem::StemState;
use densenet_plan::{Block, Plan, Training};

/// The activations of a plan, for batches up to the size that they are allocated for.
pub struct Activations {
    /// Batch x height x width x channels.
    pub images: Memory<f32>,
    pub convolved: Memory<f32>,
    pub choice: Memory<u8>,
    /// Feature maps of each block; empty if only frozen stages read them.
    pub maps: Vec<Memory<f32>>,
    pub gradient: Memory<f32>,
    pub handover: Memory<f32>,
    pub bottlenecks: BottleneckMaps,
    pub bottleneck_gradient: Memory<f32>,
    pub fresh: Memory<f32>,
    pub features: Memory<f32>,
    pub feature_gradient: Memory<f32>,
    pub logits: Memory<f32>,
    pub logit_gradient: Memory<f32>,
    pub stem: StemState,
    pub blocks: Vec<BlockState>,
    /// Memory for the BN of a transition or the head.
    pub affine: Affine,
}

/// Outputs of the 1x1 convolutions.
pub struct BottleneckMaps {
    /// Those of all layers, block by block; empty for blocks that recompute theirs or are frozen.
    kept: Vec<Memory<f32>>,
    /// Those of one layer: the layers of all blocks that recompute theirs take turns.
    one: Memory<f32>,
    /// How many blocks recompute theirs, counted from the first block.
    recomputed: usize,
}

impl BottleneckMaps {
    fn new(plan: &Plan, batch: usize, training: Training) -> Result<Self, OutOfMemory> {
        let recomputed = plan.recomputed_blocks(training.recompute);
        let without = recomputed.max(training.frozen.blocks(plan));
        let what = "bottleneck maps";
        let one = plan.recomputed_bottleneck(training);
        let kept = plan.blocks().iter().enumerate().map(|(index, block)| {
            let layers = if index < without { 0 } else { block.layers };
            zeros(what, batch * block.bottleneck_maps() * layers)
        });
        Ok(Self {
            kept: kept.collect::<Result<_, _>>()?,
            one: zeros(what, batch * one)?,
            recomputed,
        })
    }

    /// The maps of one block, whose layers have `len` values each.
    pub fn of_block(&mut self, index: usize, len: usize) -> Bottlenecks<'_> {
        if index < self.recomputed {
            Bottlenecks::Recomputed(&mut self.one[..len])
        } else {
            Bottlenecks::Kept(&mut self.kept[index])
        }
    }
}

impl Activations {
    pub fn new(plan: &Plan, batch: usize, training: Training) -> Result<Self, OutOfMemory> {
        let frozen = training.frozen;
        let buffers = plan.buffers(training);
        let len = |block: &Block| batch * block.pixels() * block.stride();
        let maps =
            plan.blocks().iter().enumerate().map(
                |(index, block)| {
                    if frozen.reader(index) { 0 } else { len(block) }
                },
            );
        let gradient = maps.clone().max().unwrap_or(0);
        let maps = maps.map(|len| zeros("feature maps", len));
        Ok(Self {
            images: zeros("images", batch * buffers.input)?,
            convolved: zeros("the stem's maps", batch * buffers.stem)?,
            choice: zeros("the max pool's choices", batch * buffers.pool_choice)?,
            maps: maps.collect::<Result<_, _>>()?,
            gradient: zeros("gradients of feature maps", gradient)?,
            handover: zeros("gradients between blocks", batch * buffers.handover)?,
            bottlenecks: BottleneckMaps::new(plan, batch, training)?,
            bottleneck_gradient: zeros(
                "gradients of bottleneck maps",
                batch * buffers.bottleneck_gradient,
            )?,
            fresh: zeros("gradients of new maps", batch * buffers.fresh)?,
            features: zeros("features", batch * plan.features())?,
            feature_gradient: zeros("gradients of features", batch * plan.features())?,
            logits: zeros("logits", batch * plan.classes())?,
            logit_gradient: zeros("gradients of logits", batch * plan.classes())?,
            stem: StemState::new(plan.stem()),
            blocks: plan.blocks().iter().map(BlockState::new).collect(),
            affine: Affine::default(),
        })
    }
}

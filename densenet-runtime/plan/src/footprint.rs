//! The memory of a training step: its buffers and their sizes.

use crate::{Block, Frozen, Plan, StemKind};

const F32: u128 = 4;

/// What the backward pass recomputes instead of keeping (arXiv 1707.06990).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// Nothing: the bottleneck maps of each layer are kept.
    #[default]
    Nothing,
    /// The bottleneck maps of the first blocks, whose maps are large and whose 1x1 convolutions are
    /// cheap: as many blocks as add at most an eighth to the multiply-adds
    /// ([`Plan::recomputed_blocks`]).
    Bottlenecks,
}

/// What a training executor keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Training {
    /// What the backward pass recomputes.
    pub recompute: Recompute,
    /// The second moments of the gradients, for AdamW.
    pub second_moments: bool,
    /// An average (EMA) of parameters and running statistics.
    pub average: bool,
    /// The first stages, which do not train.
    pub frozen: Frozen,
}

impl From<Recompute> for Training {
    fn from(recompute: Recompute) -> Self {
        Self {
            recompute,
            ..Self::default()
        }
    }
}

/// The activation buffers of a training step, in elements for one image. The buffers of frozen
/// stages depend on the device, and are not counted.
///
/// A dense block is one buffer that its layers append to. Nothing is concatenated, and the output
/// of BN and ReLU is never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// The input image.
    pub input: usize,
    /// The output of the ImageNet stem's convolution; CIFAR's writes straight into block 1.
    pub stem: usize,
    /// One byte for each output of the max pool: which of the 9 pixels it took.
    pub pool_choice: usize,
    /// All feature maps of all blocks.
    pub blocks: usize,
    /// Gradient of one block's feature maps: the largest block's, since blocks take turns.
    pub gradient: usize,
    /// Gradient of a transition's output, passed from a block to the previous one.
    pub handover: usize,
    /// Outputs of the 1x1 convolutions: of all layers, but only one at a time in recomputed blocks.
    pub bottleneck: usize,
    /// Gradient of one layer's bottleneck maps.
    pub bottleneck_gradient: usize,
    /// Gradient of one layer's new maps; for a plain layer also the maps themselves.
    pub fresh: usize,
    /// Pooled features, logits and their gradients.
    pub head: usize,
}

/// Bytes of a training step, as a function of the batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes that do not depend on the batch size: parameters, gradients, momentum, statistics.
    pub fixed: u64,
    /// Bytes for each image of the batch.
    pub per_image: u64,
}

impl Footprint {
    /// Bytes at this batch size; saturates.
    pub const fn bytes(&self, batch: usize) -> u64 {
        self.per_image
            .saturating_mul(batch as u64)
            .saturating_add(self.fixed)
    }

    /// The largest batch size that fits a budget of bytes; 0 if not even one image fits.
    pub const fn largest_batch(&self, budget: u64) -> u64 {
        match budget.checked_sub(self.fixed) {
            Some(rest) if self.per_image > 0 => rest / self.per_image,
            _ => 0,
        }
    }
}

impl Buffers {
    /// Bytes of all buffers in f32.
    fn bytes(&self) -> u128 {
        let elements = [
            self.input,
            self.stem,
            self.blocks,
            self.gradient,
            self.handover,
            self.bottleneck,
            self.bottleneck_gradient,
            self.fresh,
            self.head,
        ];
        let elements: u128 = elements.iter().map(|&n| n as u128).sum();
        elements * F32 + self.pool_choice as u128
    }
}

impl Plan {
    /// The number of blocks, from the first on, whose bottleneck maps the backward pass recomputes:
    /// as many as cost at most an eighth of a training step's multiply-adds.
    pub fn recomputed_blocks(&self, recompute: Recompute) -> usize {
        if recompute == Recompute::Nothing {
            return 0;
        }
        // Forward pass, gradients of the data, gradients of the weights.
        let mut left = 3 * u128::from(self.multiply_adds()) / 8;
        let affordable = |block: &&Block| {
            let maps = block.bottleneck.unwrap_or(0) as u128;
            let channels: u128 = block.iter().map(|layer| layer.input as u128).sum();
            let extra = block.pixels() as u128 * channels * maps;
            let affordable = extra <= left;
            left = left.saturating_sub(extra);
            affordable
        };
        self.blocks().iter().take_while(affordable).count()
    }

    /// Bottleneck maps of one layer for one image: the largest among the blocks that train and
    /// recompute them.
    pub fn recomputed_bottleneck(&self, training: impl Into<Training>) -> usize {
        let training = training.into();
        let recomputed = self.recomputed_blocks(training.recompute);
        let blocks = self.blocks()[..recomputed].iter();
        let blocks = blocks.skip(training.frozen.blocks(self));
        blocks.map(Block::bottleneck_maps).max().unwrap_or(0)
    }

    /// The activation buffers of a training step, with the feature maps of consecutive pixels
    /// packed.
    pub fn buffers(&self, training: impl Into<Training>) -> Buffers {
        self.buffers_of(training.into(), Block::output)
    }

    /// The same with this many elements from one pixel's feature maps to the next pixel's.
    fn buffers_of(&self, training: Training, stride: impl Fn(&Block) -> usize) -> Buffers {
        let frozen = training.frozen;
        let stem = self.stem();
        let (convolved, choices) = match stem.kind {
            StemKind::ImageNet => {
                let (height, width) = stem.convolved_size();
                let (pooled_height, pooled_width) = stem.output_size();
                (
                    height * width * stem.maps,
                    pooled_height * pooled_width * stem.maps,
                )
            }
            StemKind::Cifar => (0, 0),
        };
        let (input, convolved, choices) = if frozen.stem() {
            (0, 0, 0)
        } else {
            let input = stem.channels * stem.height * stem.width;
            (input, convolved, choices)
        };
        let size = |block: &Block| block.pixels() * stride(block);
        let blocks = || self.blocks().iter().enumerate();
        // The largest of the blocks that need something.
        let most = |needs: &dyn Fn(usize) -> bool, of: &dyn Fn(&Block) -> usize| {
            let needing = blocks().filter(|(index, _)| needs(*index));
            needing.map(|(_, block)| of(block)).max().unwrap_or(0)
        };
        let recomputed = self.recomputed_blocks(training.recompute);
        let kept = blocks().skip(recomputed.max(frozen.blocks(self)));
        Buffers {
            input,
            stem: convolved,
            pool_choice: choices,
            blocks: blocks()
                .skip(frozen.readers(self))
                .map(|(_, block)| size(block))
                .sum(),
            gradient: most(&|index| !frozen.reader(index), &size),
            handover: most(&|index| !frozen.input(index), &|block| {
                block.pixels() * block.input
            }),
            bottleneck: self.recomputed_bottleneck(training)
                + kept
                    .map(|(_, block)| block.bottleneck_maps() * block.layers)
                    .sum::<usize>(),
            bottleneck_gradient: most(&|index| !frozen.block(index), &Block::bottleneck_maps),
            // A plain layer's maps are included.
            fresh: most(&|index| !frozen.block(index), &|block| {
                block.pixels() * block.growth
            }),
            head: 2 * (self.features() + self.classes()),
        }
    }

    /// Bytes of a training step on the CPU: parameters, gradients, moments, statistics, averages,
    /// activations, with the gaps between the pixels' feature maps ([`Block::stride`]). Each
    /// thread's scratch, little more than the largest weight of a transition, comes on top, and so do the buffers of frozen stages,
    /// which `cpu::CpuOptions::bytes` includes. `cuda::CudaOptions::bytes` gives the bytes on CUDA.
    pub fn training_footprint(&self, training: impl Into<Training>) -> Footprint {
        let training = training.into();
        let buffers = self.buffers_of(training, Block::stride);
        let second = u128::from(training.second_moments);
        let average = u128::from(training.average);
        // Frozen parameters have neither gradients nor moments.
        let [own, _] = self.trainable(training.frozen);
        let parameters =
            (1 + average) * self.parameter_count() as u128 + (2 + second) * own.len() as u128;
        // Running statistics, those before the current step, and a batch's mean, deviation and their gradients.
        let statistics =
            (2 + average) * self.running_count() as u128 + 4 * self.norm_channels() as u128;
        Footprint {
            fixed: ((parameters + statistics) * F32) as u64,
            per_image: buffers.bytes() as u64,
        }
    }
}

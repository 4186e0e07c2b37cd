//! The positions of the frozen stages' weights and activations.
//!
//! All sizes follow from the plan, so both arenas are planned before anything is allocated.

use super::memory::Places;
use super::outputs::Kept;
use super::{FrozenOptions, pointwise, stem, winograd};
use crate::engine::padded;
use crate::kernel::product::{Form, Panels};
use crate::kernel::winograd::PLACES;
use densenet_plan::{Frozen, Layer, Plan};

/// A group of images goes through a block together if their feature maps there have at most this
/// many bytes. The maps then stay in the cache from layer to layer.
const GROUP_BYTES: usize = 8 << 20;

/// A packed weight in the arena of weights.
#[derive(Clone, Copy)]
pub(super) struct Packed {
    pub panels: Panels,
    pub at: usize,
}

/// BN as a multiply-add in the arena of weights: the scale is at `at`, the shift follows it.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    pub at: usize,
    pub channels: usize,
}

impl Norm {
    /// Where the shift starts.
    pub fn shift(self) -> usize {
        self.at + padded(self.channels)
    }
}

/// The 1x1 convolution of a layer, with the BN after it folded in.
#[derive(Clone, Copy)]
pub(super) struct Compress {
    pub weight: Packed,
    pub bias: usize,
}

/// A layer.
pub(super) struct LayerStep {
    pub norm: Norm,
    pub compress: Option<Compress>,
    /// The transformed weights of the 3x3 convolution, one for each place.
    pub spatial: Packed,
}

/// A block and its feature maps.
pub(super) struct BlockStep {
    /// `None` if the block's input is frozen, and the block itself is not.
    pub layers: Vec<LayerStep>,
    /// The maps that frozen stages make: those of the layers above, and the first layer's input.
    pub channels: usize,
    /// How many images go through it together.
    pub group: usize,
    /// Where the feature maps of a group are in the arena of activations: pixels x stride.
    pub maps: usize,
    pub stride: usize,
    /// How many numbers these maps have.
    pub len: usize,
}

/// A transition.
pub(super) struct TransitionStep {
    pub norm: Norm,
    pub weight: Packed,
}

/// The last BN, ReLU and the global average pool.
#[derive(Clone, Copy)]
pub(super) struct FeaturesStep {
    pub norm: Norm,
    /// Where the features of all images are: images x stride.
    pub at: usize,
    pub stride: usize,
}

/// The classifier.
#[derive(Clone, Copy)]
pub(super) struct ClassifierStep {
    pub weight: Packed,
    pub bias: usize,
    /// Where the weight is unpacked, classes x features, if class maps are wanted.
    pub rows: usize,
    /// Where the logits are: images x stride.
    pub at: usize,
    pub stride: usize,
}

/// The first stages of a network, up to all of them.
pub(super) struct FrozenProgram {
    pub stem: Packed,
    pub stem_bias: usize,
    pub blocks: Vec<BlockStep>,
    pub transitions: Vec<TransitionStep>,
    pub features: Option<FeaturesStep>,
    pub classifier: Option<ClassifierStep>,
    /// How many numbers the arena of weights has.
    pub weights: usize,
    /// Where the padded image is.
    pub image: usize,
    /// Where the input of a layer's 3x3 convolution is: pixels x padded channels.
    pub inner: usize,
    pub inner_len: usize,
    /// Where the threads' scratch is, one thread after another.
    pub scratch: usize,
    pub scratch_len: usize,
    /// How many numbers the arena of activations has.
    pub activations: usize,
    /// The outputs that are kept for the caller; nothing if the network is not whole.
    pub outputs: Kept,
}

/// The channels that a layer's 3x3 convolution reads.
fn inner(layer: Layer) -> usize {
    layer.bottleneck.unwrap_or(layer.input)
}

/// The stride from one pixel of a block's maps to the next. A layer's last vector may extend beyond
/// the maps.
fn stride(channels: usize) -> usize {
    padded(channels) + 16
}

/// How many images go through a block together, each with `len` numbers there. The groups are as even
/// as possible.
fn group(len: usize, batch: usize, weights: usize) -> usize {
    let image = len * size_of::<f32>();
    // If the maps do not fit the cache anyway, the weights should not be read more often than the
    // maps.
    let most = (GROUP_BYTES.max(weights * size_of::<f32>()) / image).clamp(1, batch);
    batch.div_ceil(batch.div_ceil(most))
}

impl FrozenProgram {
    /// The bytes of its arenas, and of the numbers of mapped classes.
    pub fn bytes(&self) -> u64 {
        let bytes = |numbers: usize, each: usize| (numbers as u64).saturating_mul(each as u64);
        [self.weights, self.activations, self.outputs.len]
            .into_iter()
            .map(|numbers| bytes(numbers, size_of::<f32>()))
            .fold(
                bytes(self.outputs.mapped, size_of::<usize>()),
                u64::saturating_add,
            )
    }

    /// For the first stages, at least one, and exactly as many threads as the options say. `form`
    /// is the form of the products in blocks and transitions. Stem and classifier compute in f32.
    pub fn new(
        plan: &Plan,
        stages: Frozen,
        options: FrozenOptions,
        lanes: usize,
        form: Form,
    ) -> Self {
        let (batch, threads) = (options.batch, options.threads);
        let kept = if stages.classifier(plan) { batch } else { 0 };
        let mut weights = Places::default();
        let pack = |weights: &mut Places, form: Form, depth, columns, times: usize| {
            let panels = Panels {
                depth: form.whole(depth),
                columns,
                form,
            };
            Packed {
                panels,
                at: weights.place(times * panels.len(lanes)),
            }
        };
        let norm = |weights: &mut Places, channels: usize| Norm {
            at: weights.place(2 * padded(channels)),
            channels,
        };
        let depth = plan.stem().weight_len() / plan.stem().maps;
        let stem = pack(&mut weights, Form::Plain, depth, plan.stem().maps, 1);
        let stem_bias = weights.place(padded(plan.stem().maps));
        let mut activations = Places::default();
        let mut blocks: Vec<BlockStep> = Vec::new();
        let mut transitions = Vec::new();
        let mut inner_len = 0;
        let mut scratch_len = stem::scratch(plan.stem(), padded(plan.stem().maps));
        let blocks_with_input = plan.blocks().iter().enumerate();
        for (index, block) in blocks_with_input.take_while(|(index, _)| stages.input(*index)) {
            let before = weights.len;
            let depth = if stages.block(index) { block.layers } else { 0 };
            let own = || block.iter().take(depth);
            let layers = own().map(|layer| {
                let norm = norm(&mut weights, layer.input);
                let compress = layer.bottleneck.map(|maps| Compress {
                    weight: pack(&mut weights, form, layer.input, maps, 1),
                    bias: weights.place(padded(maps)),
                });
                let spatial = pack(&mut weights, form, inner(layer), layer.growth, PLACES);
                let of_layer = winograd::scratch(inner(layer), layer.growth);
                scratch_len = scratch_len.max(of_layer);
                scratch_len = scratch_len.max(pointwise::scratch(layer.input));
                LayerStep {
                    norm,
                    compress,
                    spatial,
                }
            });
            let layers = layers.collect();
            // A block's groups are made of the groups of the block before it.
            let least = blocks.last().map_or(1, |block| block.group);
            let channels = own()
                .next_back()
                .map_or(block.input, |last| last.input + last.growth);
            let image = block.pixels() * stride(channels);
            let group = group(image, batch, weights.len - before).max(least);
            let len = group * image;
            let of_layers = own().map(|layer| padded(inner(layer)));
            let widest = of_layers.max().unwrap_or(0);
            inner_len = inner_len.max(group * block.pixels() * widest);
            blocks.push(BlockStep {
                layers,
                channels,
                group,
                maps: activations.place(len),
                stride: stride(channels),
                len,
            });
            let transition = plan.transitions().get(index);
            if let Some(transition) = transition.filter(|_| stages.reader(index)) {
                scratch_len = scratch_len.max(pointwise::scratch(transition.input));
                transitions.push(TransitionStep {
                    norm: norm(&mut weights, transition.input),
                    weight: pack(&mut weights, form, transition.input, transition.output, 1),
                });
            }
        }
        let (count, classes) = (plan.features(), plan.classes());
        let features = stages.features(plan).then(|| FeaturesStep {
            norm: norm(&mut weights, count),
            at: activations.place(batch * padded(count)),
            stride: padded(count),
        });
        let classifier = stages.classifier(plan).then(|| ClassifierStep {
            weight: pack(&mut weights, Form::Plain, count, classes, 1),
            bias: weights.place(padded(classes)),
            rows: weights.place(match options.outputs.class_maps {
                0 => 0,
                _ => classes * count,
            }),
            at: activations.place(batch * padded(classes)),
            stride: padded(classes),
        });
        let scratch_len = padded(scratch_len);
        Self {
            stem,
            stem_bias,
            blocks,
            transitions,
            features,
            classifier,
            weights: weights.len,
            image: activations.place(stem::padded_image(plan.stem()).1),
            inner: activations.place(inner_len),
            inner_len,
            scratch: activations.place(threads * scratch_len),
            scratch_len,
            activations: activations.len,
            outputs: Kept::new(plan, kept, options.outputs),
        }
    }
}

#[cfg(test)]
mod tests {
    use densenet_plan::{BlockSpec, Ratio, Spec, StemKind};

    use super::*;

    #[test]
    fn images_go_in_groups_through_a_block_whose_maps_of_all_do_not_fit() {
        let [wide, narrow] = [32, 8].map(|growth| BlockSpec { layers: 1, growth });
        let spec = Spec {
            blocks: vec![wide, narrow],
            theta: Ratio::new(1, 2),
            bottleneck: Some(1),
            stem: StemKind::Cifar,
            init: 130,
            input: [1, 70, 64],
            classes: 7,
            dropout: 0.0,
        };
        let plan = spec.plan().unwrap();
        let options = FrozenOptions {
            threads: 2,
            ..FrozenOptions::for_batch(7)
        };
        let program = FrozenProgram::new(&plan, Frozen::all(&plan), options, 8, Form::Plain);
        let groups: Vec<_> = program.blocks.iter().map(|block| block.group).collect();
        assert_eq!(groups, [2, 7]);
    }
}

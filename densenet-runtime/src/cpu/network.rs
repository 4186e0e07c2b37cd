//! The stages of a plan in a row, over buffers that were allocated once.

use super::conv::finish::finish;
use super::conv::pointwise::{Input, Target};
use super::engine::{Engine, padded};
use super::kernel::dropout::Dropout;
use super::kernel::load::NormRelu;
use super::kernel::normal::{Norm, NormWeights, Norms};
use super::memory::{Memory, zeros};
use super::stage::block::{self, BlockBuffers, BlockGradients, BlockState, Bottlenecks, Sites};
use super::stage::head;
use super::stage::stem::{self, StemBuffers, StemState};
use super::stage::transition;
use crate::executor::ExecutorError;
use crate::plan::{Block, Plan, Recompute, Span, Tensors};

/// The activations of a plan for a largest batch.
pub(crate) struct Activations {
    /// NHWC.
    pub images: Memory<f32>,
    convolved: Memory<f32>,
    choice: Memory<u8>,
    maps: Vec<Memory<f32>>,
    gradient: Memory<f32>,
    handover: Memory<f32>,
    bottlenecks: BottleneckMaps,
    bottleneck_gradient: Memory<f32>,
    fresh: Memory<f32>,
    features: Memory<f32>,
    feature_gradient: Memory<f32>,
    pub logits: Memory<f32>,
    pub logit_gradient: Memory<f32>,
    stem: StemState,
    blocks: Vec<BlockState>,
}

/// Outputs of the 1x1 convolutions.
struct BottleneckMaps {
    /// Of all layers, block by block; nothing where they are recomputed.
    kept: Vec<Memory<f32>>,
    /// Of one layer of a block that recomputes them: the layers take turns.
    one: Memory<f32>,
    /// The blocks that recompute theirs, from the first on.
    recomputed: usize,
}

impl BottleneckMaps {
    fn new(plan: &Plan, batch: usize, recompute: Recompute) -> Result<Self, ExecutorError> {
        let recomputed = plan.recomputed_blocks(recompute);
        let what = "bottleneck maps";
        let one = plan.recomputed_bottleneck(recompute);
        let kept = plan.blocks().iter().enumerate().map(|(index, block)| {
            let layers = if index < recomputed { 0 } else { block.layers };
            zeros(what, batch * block.bottleneck_maps() * layers)
        });
        Ok(Self {
            kept: kept.collect::<Result<_, _>>()?,
            one: zeros(what, batch * one)?,
            recomputed,
        })
    }

    /// Those of a block, whose layers have `len` values each.
    fn of_block(&mut self, index: usize, len: usize) -> Bottlenecks<'_> {
        if index < self.recomputed {
            Bottlenecks::Recomputed(&mut self.one[..len])
        } else {
            Bottlenecks::Kept(&mut self.kept[index])
        }
    }
}

impl Activations {
    pub fn new(plan: &Plan, batch: usize, recompute: Recompute) -> Result<Self, ExecutorError> {
        let buffers = plan.buffers(recompute);
        let mut maps = Vec::new();
        let len = |block: &Block| batch * block.pixels() * block.stride();
        for block in plan.blocks().iter() {
            maps.push(zeros("feature maps", len(block))?);
        }
        let gradient = plan.blocks().iter().map(len).max().unwrap_or(0);
        Ok(Self {
            images: zeros("images", batch * buffers.input)?,
            convolved: zeros("the stem's maps", batch * buffers.stem)?,
            choice: zeros("the max pool's choices", batch * buffers.pool_choice)?,
            maps,
            gradient: zeros("gradients of feature maps", gradient)?,
            handover: zeros("gradients between blocks", batch * buffers.handover)?,
            bottlenecks: BottleneckMaps::new(plan, batch, recompute)?,
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
        })
    }
}

/// How a pass runs.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    pub batch: usize,
    /// Seeds dropout.
    pub seed: u64,
}

/// A block's dropout, and that of the transition that follows it.
fn sites(plan: &Plan, index: usize, pass: Pass) -> (Sites, Option<Dropout>) {
    let sites = Sites {
        probability: plan.dropout(),
        seed: pass.seed,
        sites: plan.dropout_sites(index),
    };
    (sites, sites.transition())
}

/// From images to logits. `running` moves if `training`, and is used if not.
pub(crate) fn forward(
    engine: &mut Engine,
    plan: &Plan,
    tensors: &Tensors,
    parameters: &[f32],
    running: &mut [f32],
    activations: &mut Activations,
    pass: Pass,
    training: bool,
) {
    let Pass { batch, .. } = pass;
    let first = &plan.blocks()[0];
    let a = activations;
    {
        let buffers = StemBuffers {
            convolved: &mut a.convolved,
            choice: &mut a.choice,
        };
        let target = Target {
            values: &mut a.maps[0],
            stride: first.stride(),
            column: 0,
        };
        let norms = norms_of(running, training);
        let images = &a.images;
        stem::forward(
            engine,
            (plan.stem(), &tensors.stem),
            batch,
            images,
            parameters,
            norms,
            &mut a.stem,
            buffers,
            target,
        );
        if training {
            a.blocks[0].maps.merge(0, engine.moments());
        }
    }
    for (index, block) in plan.blocks().iter().enumerate() {
        let (sites, dropout) = sites(plan, index, pass);
        let pixels = batch * block.pixels();
        let (head, tail) = a.maps.split_at_mut(index + 1);
        let x = &mut head[index][..pixels * block.stride()];
        let buffers = BlockBuffers {
            x,
            stride: block.stride(),
            bottleneck: a
                .bottlenecks
                .of_block(index, batch * block.bottleneck_maps()),
            fresh: &mut a.fresh,
        };
        block::forward(
            engine,
            (block, &tensors.blocks[index]),
            batch,
            parameters,
            norms_of(running, training),
            &mut a.blocks[index],
            buffers,
            sites,
        );
        let Some(transition) = plan.transitions().get(index) else {
            continue;
        };
        let own = &tensors.transitions[index];
        let weight = own.conv.weight.of(parameters);
        let mut affine = std::mem::take(&mut engine.affine);
        let statistics = &a.blocks[index].maps;
        let mut norms = norms_of(running, training);
        affine[0].prepare(parameters, &own.norm, statistics, &mut norms, pixels);
        let source = NormRelu {
            x: &head[index],
            stride: block.stride(),
            affine: &affine[0],
        };
        let stride = plan.blocks()[index + 1].stride();
        let target = Target {
            values: &mut tail[0],
            stride,
            column: 0,
        };
        let dropout = dropout.filter(|_| training);
        transition::forward(
            engine, transition, batch, weight, source, target, dropout, training,
        );
        engine.affine = affine;
        if training {
            a.blocks[index + 1].maps.merge(0, engine.moments());
        }
    }
    let last = plan.blocks().len() - 1;
    let block = &plan.blocks()[last];
    let own = &tensors.head;
    let mut affine = std::mem::take(&mut engine.affine);
    let mut norms = norms_of(running, training);
    let pixels = batch * block.pixels();
    let statistics = &a.blocks[last].maps;
    affine[0].prepare(parameters, &own.norm, statistics, &mut norms, pixels);
    let source = NormRelu {
        x: &a.maps[last],
        stride: block.stride(),
        affine: &affine[0],
    };
    let features = &mut a.features[..batch * block.output()];
    head::pool(engine, source, block.output(), block.pixels(), features);
    engine.affine = affine;
    head::classify(
        engine,
        features,
        own.weight.of(parameters),
        own.bias.of(parameters),
        &mut a.logits[..batch * plan.classes()],
    );
}

fn norms_of(running: &mut [f32], training: bool) -> Norms<'_> {
    if training {
        Norms::Batch(running)
    } else {
        Norms::Running(running)
    }
}

/// From the gradient of the logits to the gradients of the parameters, which are added to.
pub(crate) fn backward(
    engine: &mut Engine,
    plan: &Plan,
    tensors: &Tensors,
    parameters: &[f32],
    gradients: &mut [f32],
    activations: &mut Activations,
    pass: Pass,
) {
    let Pass { batch, .. } = pass;
    let a = activations;
    let last = plan.blocks().len() - 1;
    {
        let block = &plan.blocks()[last];
        let channels = block.output();
        let own = &tensors.head;
        let weight = own.weight.of(parameters);
        let [dweight, dbias] = Span::of_each([own.weight, own.bias], gradients);
        let features = &a.features[..batch * channels];
        let dfeatures = &mut a.feature_gradient[..batch * channels];
        let dlogits = &a.logit_gradient[..batch * plan.classes()];
        let into = (dweight, dbias);
        head::classify_backward(engine, features, weight, dlogits, into, dfeatures);
        let norm = NormWeights::of(parameters, &own.norm);
        let mut affine = std::mem::take(&mut engine.affine);
        let state = &mut a.blocks[last];
        affine[0].set(&norm, &state.maps.mean, &state.maps.inverse);
        let input = Input {
            x: &a.maps[last],
            stride: block.stride(),
            channels,
            norm: Norm {
                affine: &affine[0],
                gamma: norm.scale,
                mean: &state.maps.mean,
                inverse: &state.maps.inverse,
            },
        };
        head::pool_backward(engine, input, block.pixels(), dfeatures, &mut a.gradient);
        engine.affine = affine;
        let into = gradients[own.norm.trainable()].split_at_mut(channels);
        state.gradient.start(engine.sums(), norm.scale, into);
    }
    for (index, block) in plan.blocks().iter().enumerate().rev() {
        let (sites, _) = sites(plan, index, pass);
        let pixels = batch * block.pixels();
        block::backward(
            engine,
            (block, &tensors.blocks[index]),
            batch,
            parameters,
            gradients,
            &mut a.blocks[index],
            &a.maps[index],
            a.bottlenecks
                .of_block(index, batch * block.bottleneck_maps()),
            BlockGradients {
                g: &mut a.gradient[..pixels * block.stride()],
                stride: block.stride(),
                bottleneck: &mut a.bottleneck_gradient,
                fresh: &mut a.fresh,
                raw: None,
            },
            sites,
        );
        // What is left is the gradient of the block's input, handed to the stage before it.
        let handover = &mut a.handover[..pixels * block.input];
        let source = (&a.gradient[..], &a.maps[index][..], block.stride());
        let state = &a.blocks[index];
        let maps = (&state.maps, &state.gradient);
        finish(engine, source, 0..block.input, maps, None, handover, None);
        let Some(before) = index.checked_sub(1) else {
            continue;
        };
        let (_, dropout) = self::sites(plan, before, pass);
        let transition = &plan.transitions()[before];
        let own = &tensors.transitions[before];
        let channels = transition.input;
        let stride = plan.blocks()[before].stride();
        let norm = NormWeights::of(parameters, &own.norm);
        let weight = own.conv.weight.of(parameters);
        let mut affine = std::mem::take(&mut engine.affine);
        let state = &mut a.blocks[before];
        affine[0].set(&norm, &state.maps.mean, &state.maps.inverse);
        let input = Input {
            x: &a.maps[before],
            stride,
            channels,
            norm: Norm {
                affine: &affine[0],
                gamma: norm.scale,
                mean: &state.maps.mean,
                inverse: &state.maps.inverse,
            },
        };
        let g = &mut a.gradient[..batch * transition.pixels() * stride];
        transition::backward(
            engine, transition, batch, weight, input, handover, g, dropout,
        );
        engine.affine = affine;
        let into = gradients[own.norm.trainable()].split_at_mut(channels);
        state.gradient.start(engine.sums(), norm.scale, into);
        let weight_gradient = &mut gradients[own.conv.weight.range()];
        engine.add_weight(weight_gradient, channels, padded(channels));
    }
    let (height, width) = plan.stem().output_size();
    let buffers = StemBuffers {
        convolved: &mut a.convolved,
        choice: &mut a.choice,
    };
    stem::backward(
        engine,
        (plan.stem(), &tensors.stem),
        batch,
        &a.images,
        parameters,
        gradients,
        &a.stem,
        buffers,
        &a.handover[..batch * height * width * plan.stem().maps],
        None,
    );
}

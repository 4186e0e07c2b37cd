//! The stages of a plan in order, over buffers that were allocated once.

use super::activations::Activations;
use super::conv::pointwise::{Destination, OutputColumns};
use super::engine::Engine;
use super::frozen::{FoldedStages, Output};
use super::stage::block::{self, BlockBuffers, BlockGradients};
use super::stage::head::{self, HeadGradients};
use super::stage::measure::measure_moments;
use super::stage::stem::{self, StemBuffers};
use super::stage::{Backward, Drops, Forward, Maps, MapsGradient, transition};
use densenet_plan::{Block, Frozen, Pixels, Plan, Tensors};

/// A network whose stages are run: what does not change from pass to pass.
#[derive(Clone, Copy)]
pub struct Layout<'a> {
    pub plan: &'a Plan,
    pub tensors: &'a Tensors,
    /// The stages that do not train.
    pub frozen: Frozen,
}

/// The frozen stages, and the pixels that they are given.
pub struct FrozenStages<'a> {
    pub folded: &'a mut FoldedStages,
    pub pixels: Pixels<'a>,
}

/// From images to logits. The images are those of the frozen stages if there are any, and otherwise
/// in [`Activations::images`].
pub fn forward(
    engine: &mut Engine,
    layout: Layout<'_>,
    frozen_stages: Option<FrozenStages<'_>>,
    pass: &mut Forward<'_>,
    drops: Drops,
    a: &mut Activations,
) {
    let Layout {
        plan,
        tensors,
        frozen,
    } = layout;
    let (batch, training) = (pass.batch, pass.training());
    let into_block = |block: &Block| OutputColumns {
        measure: training,
        ..OutputColumns::all(block.stride())
    };
    if let Some(stages) = frozen_stages {
        run_frozen(engine, layout, stages, (batch, training), a);
    } else {
        let target = Destination {
            values: &mut a.maps[0],
            columns: into_block(&plan.blocks()[0]),
        };
        let buffers = StemBuffers {
            images: &a.images,
            convolved: &mut a.convolved,
            choice: &mut a.choice,
        };
        let stage = (plan.stem(), &tensors.stem);
        stem::forward(engine, stage, pass, &mut a.stem, buffers, target);
    }
    let features = &mut a.features[..batch * plan.features()];
    let logits = &mut a.logits[..batch * plan.classes()];
    if frozen.features(plan) {
        return head::classify_forward(engine, &tensors.head, pass, features, logits);
    }
    for (index, block) in plan.blocks().iter().enumerate().skip(frozen.readers(plan)) {
        if training {
            a.blocks[index].maps.merge(0, engine.moments());
        }
        let sites = drops.at(plan.dropout_sites(index), pass.frozen);
        let (own, next) = a.maps.split_at_mut(index + 1);
        let x = &mut own[index][..batch * block.pixels() * block.stride()];
        if !frozen.block(index) {
            let buffers = BlockBuffers {
                x: &mut *x,
                stride: block.stride(),
                bottleneck: a
                    .bottlenecks
                    .of_block(index, batch * block.bottleneck_maps()),
                fresh: &mut a.fresh,
            };
            let stage = (block, &tensors.blocks[index][..]);
            let state = &mut a.blocks[index];
            block::forward(engine, stage, pass, state, buffers, sites);
        }
        let maps = Maps {
            x,
            stride: block.stride(),
            statistics: &a.blocks[index].maps,
            affine: &mut a.affine,
        };
        if let Some(transition) = plan.transitions().get(index) {
            let stage = (transition, &tensors.transitions[index]);
            let target = Destination {
                values: &mut next[0],
                columns: OutputColumns {
                    dropout: sites.transition(&stage.1.conv),
                    ..into_block(&plan.blocks()[index + 1])
                },
            };
            transition::forward(engine, stage, pass, maps, target);
        } else {
            let stage = (&plan.head(), &tensors.head);
            head::forward(engine, stage, pass, maps, features, logits);
        }
    }
}

/// From pixels to the input of the first stage that trains. In training, the maps are measured, as
/// those of other stages are.
fn run_frozen(
    engine: &mut Engine,
    Layout { plan, frozen, .. }: Layout<'_>,
    FrozenStages { folded, pixels }: FrozenStages<'_>,
    (batch, training): (usize, bool),
    a: &mut Activations,
) {
    let index = frozen.readers(plan);
    let images = (pixels, batch);
    let Some(block) = plan.blocks().get(index) else {
        let features = &mut a.features[..batch * plan.features()];
        let output = Output::Features(features);
        return folded.run(plan, &mut engine.team, images, output);
    };
    let stride = block.stride();
    let x = &mut a.maps[index][..batch * block.pixels() * stride];
    folded.run(plan, &mut engine.team, images, Output::Maps(x, stride));
    if training {
        let channels = if frozen.block(index) {
            block.output()
        } else {
            block.input
        };
        measure_moments(engine, x, stride, channels);
    }
}

/// From the gradient of the logits to the gradients of the parameters that train, which are added to.
pub fn backward(
    engine: &mut Engine,
    Layout {
        plan,
        tensors,
        frozen,
    }: Layout<'_>,
    pass: &mut Backward<'_>,
    drops: Drops,
    a: &mut Activations,
) {
    let batch = pass.batch;
    for (index, block) in plan.blocks().iter().enumerate().rev() {
        let pixels = batch * block.pixels();
        let sites = drops.at(plan.dropout_sites(index), pass.frozen);
        let state = &mut a.blocks[index];
        let maps = Maps {
            x: &a.maps[index],
            stride: block.stride(),
            statistics: &state.maps,
            affine: &mut a.affine,
        };
        let is_frozen = frozen.reader(index);
        let features = batch * plan.features();
        let head_gradients = HeadGradients {
            logits: &a.logit_gradient[..batch * plan.classes()],
            features: &mut a.feature_gradient[..features],
        };
        let head = (&plan.head(), &tensors.head);
        if is_frozen {
            if index + 1 == plan.blocks().len() {
                head::classifier_backward(
                    engine,
                    head,
                    pass,
                    &a.features[..features],
                    head_gradients,
                );
            }
            return;
        }
        let g = &mut a.gradient[..pixels * block.stride()];
        let into = MapsGradient {
            g: &mut *g,
            sums: &mut state.gradient,
        };
        if let Some(transition) = tensors.transitions.get(index)
            && pass.is_done(transition.conv.weight.range().end)
        {
            return;
        }
        match plan.transitions().get(index) {
            None => {
                let features = &a.features[..features];
                head::backward(engine, head, pass, maps, features, head_gradients, into);
            }
            Some(transition) => {
                let dout = &a.handover;
                let stage = (transition, &tensors.transitions[index]);
                let dropout = sites.transition(&stage.1.conv);
                transition::backward(engine, stage, pass, maps, dout, dropout, into);
            }
        }
        if frozen.block(index) {
            return;
        }
        let input = if frozen.input(index) {
            0
        } else {
            pixels * block.input
        };
        let buffers = BlockGradients {
            x: &a.maps[index],
            stride: block.stride(),
            bottlenecks: a
                .bottlenecks
                .of_block(index, batch * block.bottleneck_maps()),
            g,
            raw: None,
            bottleneck: &mut a.bottleneck_gradient,
            fresh: &mut a.fresh,
            input: &mut a.handover[..input],
        };
        let stage = (block, &tensors.blocks[index][..]);
        block::backward(engine, stage, pass, state, buffers, sites);
        if frozen.input(index) {
            return;
        }
    }
    let stem = tensors.stem;
    let end = stem
        .norm
        .map_or(stem.conv.weight.range(), |norm| norm.trainable())
        .end;
    if pass.is_done(end) {
        return;
    }
    let first = &plan.blocks()[0];
    let dout = &a.handover[..batch * first.pixels() * first.input];
    let buffers = StemBuffers {
        images: &a.images,
        convolved: &mut a.convolved,
        choice: &mut a.choice,
    };
    let stage = (plan.stem(), &tensors.stem);
    stem::backward(engine, stage, pass, &mut a.stem, buffers, dout, None);
}

//! The stages of a plan in order, over buffers that were allocated once.

use super::activations::Activations;
use super::conv::pointwise::{Columns, Target};
use super::engine::Engine;
use super::stage::block::{self, BlockBuffers, BlockGradients};
use super::stage::head::{self, HeadGradients};
use super::stage::stem::{self, StemBuffers};
use super::stage::{Backward, Drops, Forward, Maps, MapsGradient, transition};
use densenet_plan::{Block, Plan, Tensors};

/// A network to run: what does not change from pass to pass.
#[derive(Clone, Copy)]
pub struct Layout<'a> {
    pub plan: &'a Plan,
    pub tensors: &'a Tensors,
}

/// From images to logits.
pub fn forward(
    engine: &mut Engine,
    Layout { plan, tensors }: Layout<'_>,
    pass: &mut Forward<'_>,
    drops: Drops,
    a: &mut Activations,
) {
    let (batch, measure) = (pass.batch, pass.training());
    let into_block = |block: &Block| Columns {
        measure,
        ..Columns::all(block.stride())
    };
    let target = Target {
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
    for (index, block) in plan.blocks().iter().enumerate() {
        if measure {
            a.blocks[index].maps.merge(0, engine.moments());
        }
        let sites = drops.at(plan.dropout_sites(index));
        let (own, next) = a.maps.split_at_mut(index + 1);
        let buffers = BlockBuffers {
            x: &mut own[index][..batch * block.pixels() * block.stride()],
            stride: block.stride(),
            bottleneck: a
                .bottlenecks
                .of_block(index, batch * block.bottleneck_maps()),
            fresh: &mut a.fresh,
        };
        let stage = (block, &tensors.blocks[index][..]);
        block::forward(engine, stage, pass, &mut a.blocks[index], buffers, sites);
        let maps = Maps {
            x: &own[index],
            stride: block.stride(),
            statistics: &a.blocks[index].maps,
            affine: &mut a.affine,
        };
        let Some(transition) = plan.transitions().get(index) else {
            let features = &mut a.features[..batch * plan.features()];
            let logits = &mut a.logits[..batch * plan.classes()];
            let stage = (&plan.head(), &tensors.head);
            return head::forward(engine, stage, pass, maps, features, logits);
        };
        let target = Target {
            values: &mut next[0],
            columns: Columns {
                dropout: sites.transition(),
                ..into_block(&plan.blocks()[index + 1])
            },
        };
        let stage = (transition, &tensors.transitions[index]);
        transition::forward(engine, stage, pass, maps, target);
    }
}

/// From the gradient of the logits to the gradients of the parameters, which are added to.
pub fn backward(
    engine: &mut Engine,
    Layout { plan, tensors }: Layout<'_>,
    pass: &mut Backward<'_>,
    drops: Drops,
    a: &mut Activations,
) {
    let batch = pass.batch;
    for (index, block) in plan.blocks().iter().enumerate().rev() {
        let pixels = batch * block.pixels();
        let sites = drops.at(plan.dropout_sites(index));
        let state = &mut a.blocks[index];
        let maps = Maps {
            x: &a.maps[index],
            stride: block.stride(),
            statistics: &state.maps,
            affine: &mut a.affine,
        };
        let g = &mut a.gradient[..pixels * block.stride()];
        let into = MapsGradient {
            g: &mut *g,
            sums: &mut state.gradient,
        };
        match plan.transitions().get(index) {
            None => {
                let features = batch * plan.features();
                let gradients = HeadGradients {
                    logits: &a.logit_gradient[..batch * plan.classes()],
                    features: &mut a.feature_gradient[..features],
                };
                let stage = (&plan.head(), &tensors.head);
                let features = &a.features[..features];
                head::backward(engine, stage, pass, maps, features, gradients, into);
            }
            Some(transition) => {
                let dout = &a.handover;
                let stage = (transition, &tensors.transitions[index]);
                let dropout = sites.transition();
                transition::backward(engine, stage, pass, maps, dout, dropout, into);
            }
        }
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
            input: &mut a.handover[..pixels * block.input],
        };
        let stage = (block, &tensors.blocks[index][..]);
        block::backward(engine, stage, pass, state, buffers, sites);
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

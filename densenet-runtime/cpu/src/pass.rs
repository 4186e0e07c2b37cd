//! The stages of a plan in order, over buffers that were allocated once.

use super::activations::Activations;
use super::conv::pointwise::{Columns, Target};
use super::engine::Engine;
use super::stage::block::{self, BlockBuffers, BlockGradients};
use super::stage::head::{self, HeadGradients};
use super::stage::stem::{self, StemBuffers};
use super::stage::{Backward, Drops, Forward, Maps, MapsGradient, transition};
use densenet_plan::{Block, Frozen, Plan, Tensors};

/// A network whose stages are run: what does not change from pass to pass.
#[derive(Clone, Copy)]
pub struct Layout<'a> {
    pub plan: &'a Plan,
    pub tensors: &'a Tensors,
    /// The stages that do not train.
    pub frozen: Frozen,
}

/// Runs a stage, with the running statistics if it is frozen.
fn run(
    pass: &mut Forward<'_>,
    is_frozen: bool,
    measure: bool,
    stage: impl FnOnce(&mut Forward<'_>),
) {
    if is_frozen {
        stage(&mut pass.frozen(measure));
    } else {
        stage(pass);
    }
}

/// From images to logits.
pub fn forward(
    engine: &mut Engine,
    Layout {
        plan,
        tensors,
        frozen,
    }: Layout<'_>,
    pass: &mut Forward<'_>,
    drops: Drops,
    a: &mut Activations,
) {
    let (batch, training) = (pass.batch, pass.training());
    // Only a reader that trains wants statistics of a block's maps.
    let measured = |index: usize| training && !frozen.reader(index);
    let into_block = |index: usize, block: &Block| Columns {
        measure: measured(index),
        ..Columns::all(block.stride())
    };
    let dropped = |is_frozen: bool| if is_frozen { Drops::default() } else { drops };
    let target = Target {
        values: &mut a.maps[plan.maps_buffer(frozen, 0)],
        columns: into_block(0, &plan.blocks()[0]),
    };
    let buffers = StemBuffers {
        images: &a.images,
        convolved: &mut a.convolved,
        choice: &mut a.choice,
    };
    let stage = (plan.stem(), &tensors.stem);
    run(pass, frozen.stem(), false, |pass| {
        stem::forward(engine, stage, pass, &mut a.stem, buffers, target);
    });
    for (index, block) in plan.blocks().iter().enumerate() {
        if measured(index) {
            a.blocks[index].maps.merge(0, engine.moments());
        }
        let all_sites = plan.dropout_sites(index);
        // A block and the next one have different buffers.
        let own = plan.maps_buffer(frozen, index);
        let mut x = std::mem::take(&mut a.maps[own]);
        let buffers = BlockBuffers {
            x: &mut x[..batch * block.pixels() * block.stride()],
            stride: block.stride(),
            bottleneck: a
                .bottlenecks
                .of_block(index, batch * block.bottleneck_maps()),
            fresh: &mut a.fresh,
        };
        let stage = (block, &tensors.blocks[index][..]);
        let state = &mut a.blocks[index];
        let sites = dropped(frozen.block(index)).at(all_sites);
        run(pass, frozen.block(index), measured(index), |pass| {
            block::forward(engine, stage, pass, state, buffers, sites);
        });
        let maps = Maps {
            x: &x,
            stride: block.stride(),
            statistics: &a.blocks[index].maps,
            affine: &mut a.affine,
        };
        let is_frozen = frozen.reader(index);
        if let Some(transition) = plan.transitions().get(index) {
            let target = Target {
                values: &mut a.maps[plan.maps_buffer(frozen, index + 1)],
                columns: Columns {
                    dropout: dropped(is_frozen).at(all_sites).transition(),
                    ..into_block(index + 1, &plan.blocks()[index + 1])
                },
            };
            let stage = (transition, &tensors.transitions[index]);
            run(pass, is_frozen, false, |pass| {
                transition::forward(engine, stage, pass, maps, target);
            });
        } else {
            let features = &mut a.features[..batch * plan.features()];
            let logits = &mut a.logits[..batch * plan.classes()];
            let stage = (&plan.head(), &tensors.head);
            run(pass, is_frozen, false, |pass| {
                head::forward(engine, stage, pass, maps, features, logits);
            });
        }
        a.maps[own] = x;
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
        let sites = drops.at(plan.dropout_sites(index));
        let own = plan.maps_buffer(frozen, index);
        let state = &mut a.blocks[index];
        let maps = Maps {
            x: &a.maps[own],
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
        match plan.transitions().get(index) {
            None => {
                let features = &a.features[..features];
                head::backward(engine, head, pass, maps, features, head_gradients, into);
            }
            Some(transition) => {
                let dout = &a.handover;
                let stage = (transition, &tensors.transitions[index]);
                let dropout = sites.transition();
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
            x: &a.maps[own],
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

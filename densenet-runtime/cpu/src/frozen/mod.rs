//! The frozen form of a network for inference, and of its first stages for training with these frozen.
//!
//! It is made once from trained weights. The BN of the stem, and the BN after each 1x1
//! convolution, are folded into the convolution before them. The BN that reads a block's feature
//! maps is one multiply-add as they are loaded. Weights are packed for the products, and those of
//! 3x3 convolutions are transformed (see `winograd`). Activations are in one arena, whose size the
//! plan gives, and a call allocates nothing.
//!
//! Images go through the early, large blocks in groups that fit the cache, and through the late
//! blocks together, so that neither maps nor weights are read from memory more often than
//! necessary.

mod fold;
mod head;
mod memory;
mod outputs;
mod pass;
mod pointwise;
mod product;
mod program;
mod stem;
mod winograd;

use std::ops::Range;

use super::kernel::product::Form;
use super::kernel::simd::Level;
use super::team::Team;
use super::threads::threads;
use crate::memory::{Memory, OutOfMemory, zeros};
use densenet_plan::{Frozen, Inference, MapsOf, Outputs, Pixels, Plan, Precision};
pub use pass::Output;
use program::FrozenProgram;

/// How a network is frozen.
#[derive(Clone, Copy, Debug)]
pub struct FrozenOptions {
    /// The largest number of images in a call.
    pub batch: usize,
    /// The number of threads, at most 64. If it is 0, [`threads`](crate::threads::threads) chooses
    /// it.
    pub threads: usize,
    /// The instruction set. If the processor does not have it, the best one that it has is used.
    pub level: Level,
    /// The number format of the products in blocks and transitions.
    pub precision: Precision,
    /// The outputs beside logits and pooled features.
    pub outputs: Outputs,
}

impl FrozenOptions {
    /// Options for a batch: the default number of threads, the best instruction set, f32,
    /// and no maps.
    pub fn for_batch(batch: usize) -> Self {
        Self {
            batch,
            threads: 0,
            level: Level::detect(),
            precision: Precision::F32,
            outputs: Outputs::default(),
        }
    }
}

impl Default for FrozenOptions {
    /// Options for one image at a time.
    fn default() -> Self {
        Self::for_batch(1)
    }
}

/// The first stages of a network with their BN folded and their weights packed.
pub struct FoldedStages {
    program: FrozenProgram,
    level: Level,
    weights: Memory<f32>,
    activations: Memory<f32>,
    /// The outputs for the caller (see [`outputs`]).
    outputs: Memory<f32>,
    /// The classes of the class maps: images x wanted classes.
    mapped: Vec<usize>,
}

impl FoldedStages {
    /// Memory for the first stages, at least one. The number of threads is that of the team that
    /// will run them. The weights are zeros until they are [folded](Self::fold).
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(plan: &Plan, stages: Frozen, options: FrozenOptions) -> Result<Self, OutOfMemory> {
        let program = program(plan, stages, options);
        Ok(Self {
            weights: zeros("packed weights", program.weights)?,
            activations: zeros("activations", program.activations)?,
            outputs: zeros("outputs", program.outputs.len)?,
            mapped: outputs::classes(program.outputs.mapped)?,
            level: options.level.at_most(),
            program,
        })
    }

    /// Folds parameters and running statistics. Both have the lengths that the plan gives, and the
    /// order of [`Plan::parameters`].
    pub fn fold(&mut self, plan: &Plan, parameters: &[f32], running: &[f32]) {
        let numbers = (parameters, running);
        let lanes = self.level.lanes();
        fold::fold(plan, &self.program, lanes, numbers, &mut self.weights);
    }

    /// Runs the stages on some images, at most as many as they were made for; `pixels` holds exactly
    /// these. `into` receives the output of the last stage, and has room for it.
    pub fn run(
        &mut self,
        plan: &Plan,
        team: &mut Team,
        (pixels, images): (Pixels<'_>, usize),
        into: Output<'_>,
    ) {
        pass::run(self, plan, team, (pixels, images), into);
    }

    /// The bytes of packed weights, activations and outputs. Nothing is allocated.
    pub fn bytes_of(plan: &Plan, stages: Frozen, options: FrozenOptions) -> u64 {
        program(plan, stages, options).bytes()
    }
}

fn program(plan: &Plan, stages: Frozen, options: FrozenOptions) -> FrozenProgram {
    let level = options.level.at_most();
    let form = Form::of(options.precision, level);
    FrozenProgram::new(plan, stages, options, level.lanes(), form)
}

/// A trained network with its BN folded and its weights packed.
pub struct Folded {
    plan: Plan,
    stages: FoldedStages,
    team: Team,
}

impl Folded {
    /// Folds parameters and running statistics. Both have the lengths that the plan gives, and the
    /// order of [`Plan::parameters`]. The batch is one that the plan can count.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(
        plan: &Plan,
        parameters: &[f32],
        running: &[f32],
        options: FrozenOptions,
    ) -> Result<Self, OutOfMemory> {
        let team = Team::new(threads(options.threads));
        let options = FrozenOptions {
            threads: team.threads(),
            ..options
        };
        let mut stages = FoldedStages::new(plan, Frozen::all(plan), options)?;
        stages.fold(plan, parameters, running);
        Ok(Self {
            plan: plan.clone(),
            stages,
            team,
        })
    }

    /// The logits of some images: images x classes. There are at most as many images as the network
    /// was frozen for, and `pixels` holds exactly these.
    pub fn infer(&mut self, pixels: Pixels<'_>, images: usize) -> &[f32] {
        self.infer_with(pixels, images, MapsOf::Nothing).logits
    }

    /// The outputs for some images. The network has these classes, and there are no more per image
    /// than [`FrozenOptions::outputs`] says.
    pub fn infer_with(
        &mut self,
        pixels: Pixels<'_>,
        images: usize,
        of: MapsOf<'_>,
    ) -> Inference<'_> {
        let (plan, stages) = (&self.plan, &mut self.stages);
        let into = Output::Inference(of);
        stages.run(plan, &mut self.team, (pixels, images), into);
        let classes = images * of.count(plan.classes());
        outputs::inference(
            plan,
            &stages.program.outputs,
            &stages.outputs,
            &stages.mapped[..classes],
            images,
        )
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The number of threads that work on a call.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.stages.level
    }

    /// The [bytes](Self::bytes) of a network that is frozen with these options. Nothing is allocated.
    pub fn bytes_of(plan: &Plan, options: FrozenOptions) -> u64 {
        let options = FrozenOptions {
            threads: threads(options.threads),
            ..options
        };
        FoldedStages::bytes_of(plan, Frozen::all(plan), options)
    }

    /// The bytes that it holds: packed weights, activations and outputs.
    pub fn bytes(&self) -> u64 {
        self.stages.program.bytes()
    }
}

/// One thread's share of `count` items.
fn share(count: usize, thread: usize, threads: usize) -> Range<usize> {
    thread * count / threads..(thread + 1) * count / threads
}

#[cfg(test)]
mod tests;

//! The frozen form of a network, for inference alone.
//!
//! Made once from a trained network. The stem's BN and the BN behind each 1x1 convolution are
//! folded into the convolution in front of them; the BN that reads a block's feature maps is one
//! multiply-add as they are loaded. Weights are packed for the products, those of 3x3
//! convolutions transformed (see `winograd`). Activations lie in one arena that is as large as
//! the plan says, and a call allocates nothing.
//!
//! Images go through the early, large blocks in groups that fit the cache and through the late
//! blocks together, so that neither maps nor weights are read from memory more than need be.

mod fold;
mod head;
mod memory;
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
use densenet_plan::{Pixels, Plan, Precision};
use program::Program;

/// How a network is frozen.
#[derive(Clone, Copy, Debug)]
pub struct FrozenOptions {
    /// The most images of a call.
    pub batch: usize,
    /// Threads, at most 64; 0 for as many as [`threads`](crate::threads::threads) says.
    pub threads: usize,
    /// The instruction set, or the best that the processor has if that is less.
    pub level: Level,
    /// In which numbers the products of blocks and transitions are computed.
    pub precision: Precision,
}

impl FrozenOptions {
    /// For a batch: the default number of threads, the best instructions, f32.
    pub fn for_batch(batch: usize) -> Self {
        Self {
            batch,
            threads: 0,
            level: Level::detect(),
            precision: Precision::F32,
        }
    }
}

impl Default for FrozenOptions {
    /// For one image at a time.
    fn default() -> Self {
        Self::for_batch(1)
    }
}

/// A trained network with its BN folded and its weights packed.
pub struct Folded {
    plan: Plan,
    program: Program,
    level: Level,
    team: Team,
    weights: Memory<f32>,
    activations: Memory<f32>,
    logits: Memory<f32>,
}

impl Folded {
    /// Folds parameters and running statistics, each as many as the plan has, in the order of
    /// [`Plan::parameters`]. The batch is one that the plan can count.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn new(
        plan: &Plan,
        parameters: &[f32],
        running: &[f32],
        options: FrozenOptions,
    ) -> Result<Self, OutOfMemory> {
        let team = Team::new(threads(options.threads));
        let level = options.level.at_most();
        let form = Form::of(options.precision, level);
        let program = Program::new(plan, options.batch, team.threads(), level.lanes(), form);
        let mut weights = zeros("packed weights", program.weights)?;
        let numbers = (parameters, running);
        fold::fold(plan, &program, level.lanes(), numbers, &mut weights);
        Ok(Self {
            plan: plan.clone(),
            activations: zeros("activations", program.activations)?,
            logits: zeros("logits", options.batch * plan.classes())?,
            program,
            level,
            team,
            weights,
        })
    }

    /// The logits of some images, at most as many as it was made for: images x classes. The pixels
    /// are those of the images.
    pub fn infer(&mut self, pixels: Pixels<'_>, images: usize) -> &[f32] {
        pass::run(self, pixels, images);
        &self.logits[..images * self.plan.classes()]
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Threads that work on a call.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.level
    }

    /// How many images go through each block at a time; for tests.
    pub fn groups(&self) -> impl Iterator<Item = usize> {
        self.program.blocks.iter().map(|block| block.group)
    }

    /// Bytes that it holds: packed weights, activations and logits.
    pub fn bytes(&self) -> u64 {
        let numbers = self.program.weights + self.program.activations + self.logits.len();
        (numbers * size_of::<f32>()) as u64
    }
}

/// One thread's share of `count` things.
fn share(count: usize, thread: usize, threads: usize) -> Range<usize> {
    thread * count / threads..(thread + 1) * count / threads
}

#[cfg(test)]
mod tests;

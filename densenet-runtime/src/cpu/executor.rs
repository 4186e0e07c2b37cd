//! The executor: a plan, its training state, and the passes over it.

use std::ops::Range;

use densenet_cpu::Level;
use densenet_cpu::activations::Activations;
use densenet_cpu::engine::Engine;
use densenet_cpu::kernel::normal::Norms;
use densenet_cpu::layout::to_nhwc;
use densenet_cpu::loss::Loss;
use densenet_cpu::memory::{Memory, zeros};
use densenet_cpu::pass::{self, Layout};
use densenet_cpu::stage::{Backward, Drops, Forward};

use super::descent::{self, Moved};
use crate::executor::{
    Arena, Batch, Descent, Executor, ExecutorError, Group, LossWeights, Optimizer, Outcome, Pixels,
    Step, check_capacity, check_frozen, check_length, check_loss_weights, check_smoothing,
    check_training,
};
use crate::plan::{Frozen, Plan, Precision, Recompute, Tensors, Training};

/// How a [`CpuExecutor`] is made.
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    /// The largest batch.
    pub batch: usize,
    /// Threads, at most 64; 0 for as many as [`threads`](super::threads) says.
    pub threads: usize,
    /// What the backward pass computes again.
    pub recompute: Recompute,
    /// In which numbers the products of dense layers are computed. Parameters, gradients,
    /// statistics and sums are f32 in either case.
    pub precision: Precision,
    /// Keeps the gradients' second moments, for AdamW.
    pub second_moments: bool,
    /// Keeps an average (EMA) of parameters and running statistics.
    pub average: bool,
    /// The first stages, which do not train.
    pub frozen: Frozen,
    /// The instruction set, or the best that the processor has if that is less.
    pub level: Level,
}

impl CpuOptions {
    /// For a batch: the default number of threads, nothing recomputed, the best instructions.
    pub fn for_batch(batch: usize) -> Self {
        Self {
            batch,
            threads: 0,
            recompute: Recompute::Nothing,
            precision: Precision::F32,
            second_moments: false,
            average: false,
            frozen: Frozen::default(),
            level: Level::detect(),
        }
    }

    /// What an executor with these options keeps.
    pub fn training(&self) -> Training {
        Training {
            recompute: self.recompute,
            second_moments: self.second_moments,
            average: self.average,
            frozen: self.frozen,
        }
    }
}

/// How a forward pass normalises, and whether it drops values.
#[derive(Clone, Copy)]
enum Mode {
    /// With the batch's statistics, which move the running ones, and dropout.
    Train {
        /// Seeds dropout.
        seed: u64,
    },
    /// With the batch's statistics, which move the running ones.
    Measure,
    /// With the running statistics.
    Evaluate,
}

/// Runs a plan on the CPU.
pub struct CpuExecutor {
    plan: Plan,
    capacity: usize,
    tensors: Tensors,
    engine: Engine,
    activations: Activations,
    parameters: Memory<f32>,
    gradients: Memory<f32>,
    momentum: Memory<f32>,
    second_moments: Memory<f32>,
    /// Averages (EMA) of parameters and running statistics.
    average: Memory<f32>,
    average_running: Memory<f32>,
    /// Of the parameters that train.
    groups: Vec<Group>,
    /// The parameters and running statistics that train.
    trainable: [Range<usize>; 2],
    /// What of these it keeps.
    training: Training,
    running: Memory<f32>,
    /// The running statistics before the step at hand, which a loss that is not finite brings back.
    running_before: Memory<f32>,
    loss_weights: LossWeights,
    /// Images of the latest batch.
    latest: usize,
}

impl CpuExecutor {
    /// Allocates everything that training with `options.batch` images needs. The parameters are
    /// zeros until they are written.
    ///
    /// # Errors
    /// If the batch is empty or too large to be counted, or there is not enough memory.
    pub fn new(plan: Plan, options: CpuOptions) -> Result<Self, ExecutorError> {
        let CpuOptions {
            batch,
            threads,
            precision,
            level,
            ..
        } = options;
        let training = options.training();
        check_capacity(&plan, batch)?;
        let parameters = plan.parameter_count();
        let zeros = |what, len| zeros(what, len).map_err(ExecutorError::in_training);
        let activations = Activations::new(&plan, batch, training);
        let frozen = training.frozen;
        check_frozen(&plan, frozen)?;
        let trainable = plan.trainable(frozen);
        let kept = |len, is_kept| if is_kept { len } else { 0 };
        Ok(Self {
            parameters: zeros("parameters", parameters)?,
            gradients: zeros("gradients", parameters)?,
            momentum: zeros("momentum", parameters)?,
            second_moments: zeros("second moments", kept(parameters, training.second_moments))?,
            average: zeros("averages", kept(parameters, training.average))?,
            average_running: zeros("averages", kept(plan.running_count(), training.average))?,
            groups: Group::after(&[Group::all(parameters)], trainable[0].start),
            trainable,
            training,
            running: zeros("running statistics", plan.running_count())?,
            running_before: zeros("running statistics", plan.running_count())?,
            activations: activations.map_err(ExecutorError::in_training)?,
            tensors: plan.tensors(),
            engine: Engine::new(super::threads(threads), level, precision),
            capacity: batch,
            loss_weights: LossWeights::default(),
            latest: 0,
            plan,
        })
    }

    /// Threads that work on a batch.
    pub fn threads(&self) -> usize {
        self.engine.team.threads()
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.engine.level
    }

    /// A part of the training state; empty if the executor does not keep it.
    fn arena(&self, arena: Arena) -> &Memory<f32> {
        match arena {
            Arena::Parameters => &self.parameters,
            Arena::Gradients => &self.gradients,
            Arena::Momentum => &self.momentum,
            Arena::Running => &self.running,
            Arena::SecondMoments => &self.second_moments,
            Arena::Average => &self.average,
            Arena::AverageRunning => &self.average_running,
        }
    }

    /// As [`arena`](Self::arena).
    fn arena_mut(&mut self, arena: Arena) -> &mut Memory<f32> {
        match arena {
            Arena::Parameters => &mut self.parameters,
            Arena::Gradients => &mut self.gradients,
            Arena::Momentum => &mut self.momentum,
            Arena::Running => &mut self.running,
            Arena::SecondMoments => &mut self.second_moments,
            Arena::Average => &mut self.average,
            Arena::AverageRunning => &mut self.average_running,
        }
    }

    /// Checks a batch and copies its images in, as NHWC.
    fn accept(&mut self, batch: Batch<'_>) -> Result<(), ExecutorError> {
        let images = batch.check(&self.plan, self.capacity)?;
        let stem = self.plan.stem();
        let (channels, area) = (stem.channels, stem.height * stem.width);
        let into = &mut self.activations.images[..images * area * channels];
        match batch.pixels {
            Pixels::Nchw(values) => to_nhwc(values, channels, area, (into, channels)),
            Pixels::Nhwc { bytes, mean, std } => {
                let pixels = into
                    .chunks_exact_mut(channels)
                    .zip(bytes.chunks_exact(channels));
                for (into, bytes) in pixels {
                    for (c, (into, &byte)) in into.iter_mut().zip(bytes).enumerate() {
                        *into = (f32::from(byte) / 255.0 - mean[c]) / std[c];
                    }
                }
            }
            Pixels::NhwcFloats { values, mean, std } => {
                let pixels = into
                    .chunks_exact_mut(channels)
                    .zip(values.chunks_exact(channels));
                for (into, values) in pixels {
                    for (c, (into, value)) in into.iter_mut().zip(values).enumerate() {
                        *into = (value - mean[c]) / std[c];
                    }
                }
            }
        }
        self.latest = images;
        Ok(())
    }

    /// From the images to the logits of the latest batch.
    fn forward(&mut self, mode: Mode) {
        let mut pass = Forward {
            batch: self.latest,
            parameters: &self.parameters,
            norms: match mode {
                Mode::Train { .. } | Mode::Measure => Norms::Batch(&mut self.running),
                Mode::Evaluate => Norms::Running(&self.running),
            },
        };
        let drops = match mode {
            Mode::Train { seed } => Drops {
                probability: self.plan.dropout(),
                seed,
            },
            Mode::Measure | Mode::Evaluate => Drops::default(),
        };
        let layout = Layout {
            plan: &self.plan,
            tensors: &self.tensors,
            frozen: self.training.frozen,
        };
        pass::forward(
            &mut self.engine,
            layout,
            &mut pass,
            drops,
            &mut self.activations,
        );
    }

    /// From the gradient of the logits to the gradients of the parameters.
    fn backward(&mut self, seed: u64) {
        let mut pass = Backward {
            batch: self.latest,
            parameters: &self.parameters,
            gradients: &mut self.gradients,
        };
        let drops = Drops {
            probability: self.plan.dropout(),
            seed,
        };
        let layout = Layout {
            plan: &self.plan,
            tensors: &self.tensors,
            frozen: self.training.frozen,
        };
        pass::backward(
            &mut self.engine,
            layout,
            &mut pass,
            drops,
            &mut self.activations,
        );
    }
}

impl Executor for CpuExecutor {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn read(&self, arena: Arena, into: &mut [f32]) -> Result<(), ExecutorError> {
        arena.check_kept(self.training)?;
        let values = self.arena(arena);
        check_length(arena.what(), values.len(), into.len())?;
        into.copy_from_slice(values);
        Ok(())
    }

    fn write(&mut self, arena: Arena, from: &[f32]) -> Result<(), ExecutorError> {
        arena.check_kept(self.training)?;
        let values = self.arena_mut(arena);
        check_length(arena.what(), values.len(), from.len())?;
        values.copy_from_slice(from);
        Ok(())
    }

    fn set_loss_weights(&mut self, weights: &LossWeights) -> Result<(), ExecutorError> {
        check_loss_weights(weights, Some(self.plan.classes()))?;
        self.loss_weights.clone_from(weights);
        Ok(())
    }

    fn differentiate(&mut self, batch: Batch<'_>, step: Step) -> Result<Outcome, ExecutorError> {
        check_training(&self.plan, batch.images(&self.plan))?;
        check_smoothing(batch.targets, step)?;
        self.accept(batch)?;
        if !step.accumulate {
            self.running_before.copy_from_slice(&self.running);
        }
        self.forward(Mode::Train { seed: step.seed });
        let classes = self.plan.classes();
        let logits = self.latest * classes;
        let loss = Loss {
            targets: batch.targets,
            weights: &self.loss_weights,
            smoothing: step.label_smoothing,
        };
        let outcome = loss.of(
            &self.activations.logits[..logits],
            classes,
            Some((&mut self.activations.logit_gradient[..logits], step.scale)),
        );
        if !outcome.loss.is_finite() {
            self.running.copy_from_slice(&self.running_before);
            return Ok(outcome);
        }
        if !step.accumulate {
            // The others are zeros.
            let [own, _] = self.trainable.clone();
            self.gradients[own].fill(0.0);
        }
        self.backward(step.seed);
        Ok(outcome)
    }

    fn set_groups(&mut self, groups: &[Group]) -> Result<(), ExecutorError> {
        Group::check(groups, self.plan.parameter_count())?;
        self.groups = Group::after(groups, self.trainable[0].start);
        Ok(())
    }

    fn descend(&mut self, descent: Descent) -> Result<(), ExecutorError> {
        if let Optimizer::AdamW(_) = descent.optimizer {
            Arena::SecondMoments.check_kept(self.training)?;
        }
        if descent.ema.is_some() {
            Arena::Average.check_kept(self.training)?;
        }
        let engine = &mut self.engine;
        let [own, statistics] = self.trainable.clone();
        let gradients = &self.gradients[own.clone()];
        let factor = match descent.clip {
            Some(most) => descent::clip(engine, gradients, most),
            None => 1.0,
        };
        let moved = Moved {
            parameters: &mut self.parameters[own.clone()],
            momentum: &mut self.momentum[own.clone()],
            gradients,
            groups: &self.groups,
            factor,
        };
        match descent.optimizer {
            Optimizer::Sgd(sgd) => descent::sgd(engine, moved, sgd),
            Optimizer::AdamW(adamw) => {
                let second_moments = &mut self.second_moments[own.clone()];
                descent::adamw(engine, moved, second_moments, adamw);
            }
        }
        if let Some(fresh) = descent.fresh() {
            let average = &mut self.average[own.clone()];
            descent::average(engine, average, &self.parameters[own], fresh);
            let average = &mut self.average_running[statistics.clone()];
            descent::average(engine, average, &self.running[statistics], fresh);
        }
        Ok(())
    }

    fn update_statistics(&mut self, batch: Batch<'_>) -> Result<(), ExecutorError> {
        check_training(&self.plan, batch.images(&self.plan))?;
        self.accept(batch)?;
        self.forward(Mode::Measure);
        Ok(())
    }

    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Outcome, ExecutorError> {
        self.accept(batch)?;
        self.forward(Mode::Evaluate);
        let classes = self.plan.classes();
        let loss = Loss {
            targets: batch.targets,
            weights: &self.loss_weights,
            smoothing: 0.0,
        };
        let logits = &self.activations.logits[..self.latest * classes];
        Ok(loss.of(logits, classes, None))
    }

    fn logits(&self, into: &mut [f32]) -> Result<(), ExecutorError> {
        let logits = &self.activations.logits[..self.latest * self.plan.classes()];
        check_length("the latest logits", logits.len(), into.len())?;
        into.copy_from_slice(logits);
        Ok(())
    }
}

//! The executor: a plan, its training state, and the passes over it.

use std::ops::Range;

use densenet_cpu::Level;
use densenet_cpu::activations::Activations;
use densenet_cpu::engine::Engine;
use densenet_cpu::frozen::{FoldedStages, FrozenOptions};
use densenet_cpu::kernel::normal::Norms;
use densenet_cpu::layout::to_nhwc;
use densenet_cpu::loss::Loss;
use densenet_cpu::memory::{Memory, zeros};
use densenet_cpu::pass::{self, FrozenStages, Layout};
use densenet_cpu::stage::{Backward, Drops, Forward, Gradients};

use super::descent::{self, Moved};
use crate::executor::{
    Arena, Batch, Descent, Executor, ExecutorError, Group, LossWeights, Optimizer, Outcome, Pixels,
    Step, check_capacity, check_frozen, check_length, check_loss_weights, check_smoothing,
    check_training,
};
use crate::plan::{Frozen, FrozenTensors, Plan, Precision, Recompute, Tensors, Training};

/// How a [`CpuExecutor`] is made.
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    /// The largest batch.
    pub batch: usize,
    /// Threads, at most 64; 0 for as many as [`threads`](super::threads) says.
    pub threads: usize,
    /// What the backward pass recomputes.
    pub recompute: Recompute,
    /// The number format of the products in dense layers. Parameters, gradients, statistics and
    /// sums are always f32.
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

    /// Bytes that an executor of a plan allocates: those of [`Plan::training_footprint`], plus the
    /// packed weights and activations of its frozen stages. Each thread's scratch, little
    /// more than the largest weight of a transition (11 MB in DenseNet-264), comes on top. If no executor can be made for the batch, the footprint alone.
    pub fn bytes(&self, plan: &Plan) -> u64 {
        let footprint = plan.training_footprint(self.training());
        let of_training = footprint.bytes(self.batch);
        let stages = match self.frozen_stages() {
            Some(options) if check_capacity(plan, self.batch).is_ok() => {
                let options = FrozenOptions {
                    threads: super::threads(self.threads),
                    ..options
                };
                FoldedStages::bytes_of(plan, self.frozen, options)
            }
            _ => 0,
        };
        of_training.saturating_add(stages)
    }

    /// How stages are frozen, if any are.
    fn frozen_stages(&self) -> Option<FrozenOptions> {
        (self.frozen.stages() > 0).then_some(FrozenOptions {
            threads: self.threads,
            level: self.level,
            precision: self.precision,
            ..FrozenOptions::for_batch(self.batch)
        })
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
    /// Of the parameters that train, and so are the moments.
    gradients: Memory<f32>,
    momentum: Memory<f32>,
    second_moments: Memory<f32>,
    /// Averages (EMA) of parameters and running statistics.
    average: Memory<f32>,
    average_running: Memory<f32>,
    /// Of the parameters that train.
    groups: Vec<Group>,
    /// The parameters that groups freeze, and the first that trains.
    frozen: Vec<Range<usize>>,
    first_trained: usize,
    /// The parameters and running statistics that train.
    trainable: [Range<usize>; 2],
    /// The state that it keeps for them.
    training: Training,
    running: Memory<f32>,
    /// The running statistics before the current step, which a loss that is not finite restores.
    running_before: Memory<f32>,
    loss_weights: LossWeights,
    /// The stages that do not train, if there are any.
    frozen_stages: Option<FoldedStages>,
    /// Whether their numbers have changed since they were folded.
    is_stale: bool,
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
        let own = trainable[0].len();
        let engine = Engine::new(super::threads(threads), level, precision);
        let frozen_stages = options.frozen_stages().map(|options| {
            let options = FrozenOptions {
                threads: engine.team.threads(),
                ..options
            };
            FoldedStages::new(&plan, frozen, options).map_err(ExecutorError::in_training)
        });
        let kept = |len, is_kept| if is_kept { len } else { 0 };
        Ok(Self {
            parameters: zeros("parameters", parameters)?,
            gradients: zeros("gradients", own)?,
            momentum: zeros("momentum", own)?,
            second_moments: zeros("second moments", kept(own, training.second_moments))?,
            average: zeros("averages", kept(parameters, training.average))?,
            average_running: zeros("averages", kept(plan.running_count(), training.average))?,
            groups: Group::after(&[Group::all(parameters)], trainable[0].start),
            frozen: Vec::new(),
            first_trained: trainable[0].start,
            trainable,
            training,
            running: zeros("running statistics", plan.running_count())?,
            running_before: zeros("running statistics", plan.running_count())?,
            activations: activations.map_err(ExecutorError::in_training)?,
            tensors: plan.tensors(),
            engine,
            frozen_stages: frozen_stages.transpose()?,
            is_stale: true,
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

    /// The first parameter or statistic that a part of the training state has: frozen stages have
    /// neither gradients nor moments.
    fn first(&self, arena: Arena) -> usize {
        match arena {
            Arena::Gradients | Arena::Momentum | Arena::SecondMoments => self.trainable[0].start,
            _ => 0,
        }
    }

    /// How many of a part's first values are folded into frozen stages.
    fn folded(&self, arena: Arena) -> usize {
        let [parameters, statistics] = &self.trainable;
        match arena {
            Arena::Parameters => parameters.start,
            Arena::Running => statistics.start,
            _ => 0,
        }
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

    /// Checks that each BN that normalises with the batch can.
    fn check_training(&self, batch: Batch<'_>) -> Result<(), ExecutorError> {
        let frozen = FrozenTensors::in_ranges(&self.frozen);
        let [_, statistics] = &self.trainable;
        let images = batch.images(&self.plan);
        check_training(&self.plan, images, frozen, statistics.start)
    }

    /// Checks a batch, and copies its images in as NHWC, unless frozen stages read them directly.
    fn accept(&mut self, batch: Batch<'_>) -> Result<(), ExecutorError> {
        let images = batch.check(&self.plan, self.capacity)?;
        self.latest = images;
        if self.frozen_stages.is_some() {
            return Ok(());
        }
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
        Ok(())
    }

    /// From the images that were accepted to their logits.
    fn forward(&mut self, mode: Mode, pixels: Pixels<'_>) {
        let frozen_stages = self.frozen_stages.as_mut().map(|folded| {
            if std::mem::take(&mut self.is_stale) {
                folded.fold(&self.plan, &self.parameters, &self.running);
            }
            FrozenStages { folded, pixels }
        });
        let mut pass = Forward {
            batch: self.latest,
            parameters: &self.parameters,
            norms: match mode {
                Mode::Train { .. } | Mode::Measure => Norms::Batch(&mut self.running),
                Mode::Evaluate => Norms::Running(&self.running),
            },
            frozen: FrozenTensors::in_ranges(&self.frozen),
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
            frozen_stages,
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
            gradients: Gradients::after(self.trainable[0].start, &mut self.gradients),
            frozen: FrozenTensors::in_ranges(&self.frozen),
            running: &self.running,
            first_trained: self.first_trained,
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
        let (first, values) = (self.first(arena), self.arena(arena));
        check_length(arena.what(), first + values.len(), into.len())?;
        let (frozen, own) = into.split_at_mut(first);
        frozen.fill(0.0);
        own.copy_from_slice(values);
        Ok(())
    }

    fn write(&mut self, arena: Arena, from: &[f32]) -> Result<(), ExecutorError> {
        arena.check_kept(self.training)?;
        let (first, folded) = (self.first(arena), self.folded(arena));
        let values = self.arena_mut(arena);
        check_length(arena.what(), first + values.len(), from.len())?;
        let changed = values[..folded] != from[..folded];
        values.copy_from_slice(&from[first..]);
        self.is_stale |= changed;
        Ok(())
    }

    fn set_loss_weights(&mut self, weights: &LossWeights) -> Result<(), ExecutorError> {
        check_loss_weights(weights, Some(self.plan.classes()))?;
        self.loss_weights.clone_from(weights);
        Ok(())
    }

    fn differentiate(&mut self, batch: Batch<'_>, step: Step) -> Result<Outcome, ExecutorError> {
        self.check_training(batch)?;
        check_smoothing(batch.targets, step)?;
        self.accept(batch)?;
        if !step.accumulate {
            self.running_before.copy_from_slice(&self.running);
        }
        self.forward(Mode::Train { seed: step.seed }, batch.pixels);
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
            self.gradients.fill(0.0);
        }
        self.backward(step.seed);
        Ok(outcome)
    }

    fn set_groups(&mut self, groups: &[Group]) -> Result<(), ExecutorError> {
        Group::check(groups, &self.plan)?;
        let start = self.trainable[0].start;
        self.groups = Group::after(groups, start);
        self.frozen = Group::frozen(groups);
        self.first_trained = FrozenTensors::in_ranges(&self.frozen).first_trained(start);
        for range in &self.frozen {
            let own = range.start.max(start) - start..range.end.max(start) - start;
            self.gradients[own].fill(0.0);
        }
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
        let gradients = &self.gradients[..];
        let factor = match descent.clip {
            Some(most) => descent::clip(engine, gradients, most),
            None => 1.0,
        };
        let moved = Moved {
            parameters: &mut self.parameters[own.clone()],
            momentum: &mut self.momentum,
            gradients,
            groups: &self.groups,
            factor,
        };
        match descent.optimizer {
            Optimizer::Sgd(sgd) => descent::sgd(engine, moved, sgd),
            Optimizer::AdamW(adamw) => {
                descent::adamw(engine, moved, &mut self.second_moments, adamw);
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
        self.check_training(batch)?;
        self.accept(batch)?;
        self.forward(Mode::Measure, batch.pixels);
        Ok(())
    }

    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Outcome, ExecutorError> {
        self.accept(batch)?;
        self.forward(Mode::Evaluate, batch.pixels);
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

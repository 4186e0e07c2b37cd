//! Trains a network that is known by its plan, or by its type.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Instant;

use super::runner::Runner;
use super::{
    Batches, Best, Config, Evaluation, Fit, Interrupt, Observer, Predictions, Rescheduled,
    StepReport,
};
use super::{Summary, TrainError, fit, slow};
use crate::parallel::Ranks;
use crate::plan::Plan;
use crate::weights::State;
use crate::{Arena, Batch, Device, Executor, Network};

/// Trains a network that is known only by its plan, as in a program that reads it at run time and
/// has no type for it. [`Trainer`] wraps this for a typed network.
///
/// ```
/// use densenet_runtime::plan::Plan;
/// use densenet_runtime::train::{Config, PlanTrainer, TrainError};
/// use densenet_runtime::weights::State;
///
/// fn trainer(plan: Plan, config: Config) -> Result<PlanTrainer, TrainError> {
///     let start = State::initial(&plan, config.seed);
///     PlanTrainer::new("DenseNet", plan, &start, config)
/// }
/// ```
pub struct PlanTrainer {
    runner: Runner,
}

impl PlanTrainer {
    /// A trainer on the CPU that starts from a state. Messages and checkpoints have the network's
    /// name.
    ///
    /// # Errors
    /// When a setting makes no sense, the state is of another plan, or there is not enough memory.
    pub fn new(name: &str, plan: Plan, state: &State, config: Config) -> Result<Self, TrainError> {
        Self::among(name, plan, state, config, &Device::Cpu, &Ranks::alone())
    }

    /// A trainer on a device that works with other processes: see [`Trainer::among`].
    ///
    /// # Errors
    /// As [`new`](Self::new), when the device fails, and when not all processes join in time.
    pub fn among(
        name: &str,
        plan: Plan,
        state: &State,
        config: Config,
        device: &Device,
        ranks: &Ranks,
    ) -> Result<Self, TrainError> {
        config.check()?;
        config.training(&plan)?;
        let executor = config.executor_among(plan, device, ranks)?;
        let mut trainer = Self::on_executor(name, state, config, executor)?;
        trainer.runner.writes = ranks.is_first();
        Ok(trainer)
    }

    /// A trainer on an executor that was made for the plan. If it is one of several ranks, the first
    /// writes the files.
    ///
    /// # Errors
    /// When a setting makes no sense, the executor is too small for it, or the state does not fit its
    /// plan.
    pub fn with_executor(
        name: &str,
        state: &State,
        config: Config,
        executor: Box<dyn Executor>,
    ) -> Result<Self, TrainError> {
        let mut trainer = Self::on_executor(name, state, config, executor)?;
        // It may have been made without the stages that are frozen first.
        let groups = trainer.config().all_groups(trainer.executor().plan())?;
        trainer.runner.executor_mut().set_groups(&groups)?;
        Ok(trainer)
    }

    fn on_executor(
        name: &str,
        state: &State,
        config: Config,
        mut executor: Box<dyn Executor>,
    ) -> Result<Self, TrainError> {
        executor.write(Arena::Parameters, &state.parameters)?;
        executor.write(Arena::Running, &state.running)?;
        let runner = Runner::new(name, executor, config)?;
        Ok(Self { runner })
    }

    /// Resumes a run from its checkpoint: weights, running statistics, momentum and position. The
    /// run then continues as if it had never stopped, bit for bit if the number of threads is the
    /// same.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is of another network or of a run with other
    /// settings. Nothing has changed then.
    pub fn resume(&mut self, path: impl AsRef<Path>) -> Result<(), TrainError> {
        self.runner.restore(path.as_ref())
    }

    /// The same with a schedule and a number of epochs that may differ from the checkpoint's, such
    /// as a lower learning rate after a run has diverged. The change and its step are recorded in
    /// later checkpoints and in the metrics.
    ///
    /// ```no_run
    /// # use densenet_runtime::{Network, train::{Config, TrainError, Trainer}};
    /// # fn resume<N: Network>(model: N) -> Result<(), TrainError> {
    /// let file = "out/checkpoint.safetensors";
    /// let mut config = Config::of_checkpoint(file)?;
    /// config.schedule.learning_rate = 0.01;
    /// let mut trainer = Trainer::new(model, config)?;
    /// trainer.resume_with_schedule(file)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`resume`](Self::resume), when settings other than these differ.
    pub fn resume_with_schedule(&mut self, path: impl AsRef<Path>) -> Result<(), TrainError> {
        self.runner.restore_with_schedule(path.as_ref())
    }

    /// Adds a note under a key to each file that the run writes from now on: see
    /// [`TensorFile::note`](crate::weights::TensorFile::note). The keys of checkpoints (`densenet`,
    /// `densenet.classes`) are reserved.
    pub fn note(&mut self, key: &str, text: &str) {
        self.runner.notes.insert(key.to_string(), text.to_string());
    }

    /// Writes a checkpoint, all or nothing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), TrainError> {
        self.runner.save(path.as_ref())
    }

    /// One step on a batch of at most [`Config::batch`] images.
    ///
    /// [`fit`](Self::fit) counts epochs. A single step belongs to the current epoch, which does not
    /// end before `fit` knows the length of an epoch.
    ///
    /// # Errors
    /// When the batch does not fit the network, or the loss is not finite. Nothing has changed
    /// then: weights, momentum, running statistics and the run's position are as they were.
    pub fn step(&mut self, batch: Batch<'_>) -> Result<StepReport, TrainError> {
        self.runner.step(batch, Instant::now())
    }

    /// Trains until all epochs are done, with an evaluation after each. Warns on standard error
    /// if this crate was compiled without optimisation.
    ///
    /// # Errors
    /// When a step fails, images cannot be read, or a checkpoint cannot be written.
    pub fn fit(
        &mut self,
        train: &dyn Batches,
        validation: &dyn Batches,
        fit: &Fit,
        observer: &mut dyn Observer,
    ) -> Result<Summary, TrainError> {
        slow::warn();
        fit::run(&mut self.runner, train, validation, fit, observer)
    }

    /// Loss and errors on all images, without dropout. The running statistics are those that
    /// [`fit`](Self::fit) recomputed for the current weights ([`Config::precise_bn`]), or else
    /// those of training. The loss of a network that has diverged is not finite. Warns on standard
    /// error if the images are normalised differently from those of training.
    ///
    /// # Errors
    /// When images cannot be read, do not fit the network, or there are none.
    pub fn evaluate(&mut self, images: &dyn Batches) -> Result<Evaluation, TrainError> {
        fit::warn_of_normalization(&self.runner, images);
        // Nobody interrupts it.
        let evaluated = fit::evaluate(&mut self.runner, images, &Interrupt::new(), false)?;
        Ok(evaluated.evaluation)
    }

    /// The same with the logits and targets of all images, from which every score can be computed.
    /// They take memory for images x classes numbers. With several processes, each one gets those
    /// of all.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate); also if batches have targets of different kinds.
    pub fn predict(
        &mut self,
        images: &dyn Batches,
    ) -> Result<(Evaluation, Predictions), TrainError> {
        fit::warn_of_normalization(&self.runner, images);
        let evaluated = fit::evaluate(&mut self.runner, images, &Interrupt::new(), true)?;
        Ok((
            evaluated.evaluation,
            evaluated.predictions.unwrap_or_default(),
        ))
    }

    /// Whether this process writes the run's files; among several, rank 0 does.
    pub fn writes(&self) -> bool {
        self.runner.writes
    }

    /// Steps done, including those of the run that was resumed.
    pub fn steps(&self) -> u64 {
        self.runner.position.step
    }

    /// The changes of the schedule when the run was resumed.
    pub fn rescheduled(&self) -> &[Rescheduled] {
        &self.runner.rescheduled
    }

    /// The best evaluation so far.
    pub fn best(&self) -> Option<Best> {
        self.runner.position.best
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.runner.config
    }

    /// The executor, which holds the weights.
    pub fn executor(&self) -> &dyn Executor {
        self.runner.executor()
    }

    /// The executor, to change the weights. Running statistics that were recomputed for the current
    /// weights are dropped.
    pub fn executor_mut(&mut self) -> &mut dyn Executor {
        self.runner.executor_mut()
    }

    /// The current weights and running statistics; with [EMA](Config#ema), their averages.
    ///
    /// # Errors
    /// When the device fails.
    pub fn state(&self) -> Result<State, TrainError> {
        self.runner.state()
    }
}

/// Trains a network that `densenet!` made.
///
/// The model's numbers live in an executor while it trains; [`model`](Self::model) brings them
/// back. A [`PlanTrainer`], whose methods it has, does all the work; its code does not depend on
/// the network's type and is compiled with this crate. A development build is as fast as a release
/// build if it optimises its dependencies. For this a user's `Cargo.toml` needs two lines; without
/// them [`fit`](PlanTrainer::fit) prints a warning:
///
/// ```toml
/// [profile.dev.package."*"]
/// opt-level = 3
/// ```
pub struct Trainer<N: Network> {
    trainer: PlanTrainer,
    model: N,
}

impl<N: Network> Trainer<N> {
    /// A trainer on the CPU that starts from the model's weights.
    ///
    /// # Errors
    /// When a setting makes no sense, or there is not enough memory.
    pub fn new(model: N, config: Config) -> Result<Self, TrainError> {
        Self::on(model, config, &Device::Cpu)
    }

    /// A trainer on a device.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when the device fails.
    pub fn on(model: N, config: Config, device: &Device) -> Result<Self, TrainError> {
        Self::among(model, config, device, &Ranks::alone())
    }

    /// A trainer on a device that works with other processes, each with the same model, the same
    /// settings and a part of the images. It waits for the others for up to five minutes. Rank 0
    /// writes the files.
    ///
    /// # Errors
    /// As [`on`](Self::on), when not all processes join in time, and when CUDA devices have no
    /// NCCL.
    pub fn among(
        model: N,
        config: Config,
        device: &Device,
        ranks: &Ranks,
    ) -> Result<Self, TrainError> {
        let state = State::of(&model);
        let trainer = PlanTrainer::among(N::NAME, N::PLAN, &state, config, device, ranks)?;
        Ok(Self { trainer, model })
    }

    /// A trainer on an executor that was made for the network's plan.
    ///
    /// # Errors
    /// When a setting makes no sense, or the executor is too small for it or of another plan.
    pub fn with_executor(
        model: N,
        config: Config,
        executor: Box<dyn Executor>,
    ) -> Result<Self, TrainError> {
        if *executor.plan() != N::PLAN {
            let name = N::NAME;
            let reason = format!("the executor was made for another plan than that of {name}");
            return Err(TrainError::Config(reason));
        }
        let trainer = PlanTrainer::with_executor(N::NAME, &State::of(&model), config, executor)?;
        Ok(Self { trainer, model })
    }

    /// The model with its current weights; with [EMA](Config#ema), with their averages.
    ///
    /// # Errors
    /// When the device fails.
    pub fn model(&mut self) -> Result<&mut N, TrainError> {
        self.trainer.state()?.store_into(&mut self.model)?;
        Ok(&mut self.model)
    }

    /// The model with its current weights; the trainer is consumed.
    ///
    /// # Errors
    /// When the device fails.
    pub fn into_model(mut self) -> Result<N, TrainError> {
        self.model()?;
        Ok(self.model)
    }
}

impl<N: Network> Deref for Trainer<N> {
    type Target = PlanTrainer;

    fn deref(&self) -> &PlanTrainer {
        &self.trainer
    }
}

impl<N: Network> DerefMut for Trainer<N> {
    fn deref_mut(&mut self) -> &mut PlanTrainer {
        &mut self.trainer
    }
}

//! Trains a network of any type.

use std::path::Path;
use std::time::Instant;

use super::engine::Engine;
use super::{Batches, Best, Config, Evaluation, Fit, Interrupt, Observer, Rescheduled, StepReport};
use super::{Summary, TrainError, fit, slow};
use crate::parallel::Ranks;
use crate::weights::State;
use crate::{Arena, Batch, Device, Executor, Network};

/// Trains a network that `densenet!` made.
///
/// The model's numbers live in an executor while it trains; [`model`](Self::model) brings them
/// back. All work is done by code that does not depend on the network's type and is compiled
/// with this crate. It is as fast in a development build as in a release build where that
/// optimises its dependencies, for which a user's `Cargo.toml` needs two lines; without them
/// [`fit`](Self::fit) prints a warning:
///
/// ```toml
/// [profile.dev.package."*"]
/// opt-level = 3
/// ```
pub struct Trainer<N: Network> {
    engine: Engine,
    model: N,
}

impl<N: Network> Trainer<N> {
    /// Trains on the CPU, from the model's numbers on.
    ///
    /// # Errors
    /// When a setting makes no sense, or there is not enough memory.
    pub fn new(model: N, config: Config) -> Result<Self, TrainError> {
        Self::on(model, config, &Device::Cpu)
    }

    /// Trains on a device.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when the device fails.
    pub fn on(model: N, config: Config, device: &Device) -> Result<Self, TrainError> {
        Self::among(model, config, device, &Ranks::alone())
    }

    /// Trains on a device, together with other processes, each with the same model, the same
    /// settings and a part of the images. It waits for the others, up to five minutes. The first of
    /// them writes the files.
    ///
    /// # Errors
    /// As [`on`](Self::on), when not all processes are there in time, and when there is no NCCL for
    /// CUDA devices.
    pub fn among(
        model: N,
        config: Config,
        device: &Device,
        ranks: &Ranks,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let executor = config.executor_among(N::PLAN, device, ranks)?;
        let mut trainer = Self::with_executor(model, config, executor)?;
        trainer.engine.writes = ranks.is_first();
        Ok(trainer)
    }

    /// Trains on an executor that was made for the network's plan.
    ///
    /// # Errors
    /// When a setting makes no sense, or the executor is too small for it or of another plan.
    pub fn with_executor(
        model: N,
        config: Config,
        mut executor: Box<dyn Executor>,
    ) -> Result<Self, TrainError> {
        let state = State::of(&model);
        executor.write(Arena::Parameters, &state.parameters)?;
        executor.write(Arena::Running, &state.running)?;
        let engine = Engine::new(N::NAME, executor, config)?;
        Ok(Self { engine, model })
    }

    /// Takes up a run where its checkpoint left it: weights, running statistics, momentum and
    /// position. What follows is what would have followed, bit for bit if the number of threads
    /// is the same too.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is of another network or of a run with other
    /// settings. Nothing has changed then.
    pub fn resume(&mut self, path: impl AsRef<Path>) -> Result<(), TrainError> {
        self.engine.restore(path.as_ref())
    }

    /// The same with a schedule, and a number of epochs, that may differ from the checkpoint's:
    /// after a run has diverged, a lower learning rate. What has changed, and at which step, is kept
    /// in the checkpoints that follow and in the metrics.
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
    /// As [`resume`](Self::resume), where settings other than these differ.
    pub fn resume_with_schedule(&mut self, path: impl AsRef<Path>) -> Result<(), TrainError> {
        self.engine.restore_with_schedule(path.as_ref())
    }

    /// Writes a checkpoint, all or nothing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), TrainError> {
        self.engine.save(path.as_ref())
    }

    /// One step on a batch, of at most [`Config::batch`] images.
    ///
    /// Epochs are counted by [`fit`](Self::fit); a step on its own counts as one of the epoch at
    /// hand, which does not end before `fit` knows the length of an epoch.
    ///
    /// # Errors
    /// When the batch does not fit the network, or the loss is not finite. Nothing has changed then:
    /// weights, momentum, running statistics and the run's position are as they were.
    pub fn step(&mut self, batch: Batch<'_>) -> Result<StepReport, TrainError> {
        self.engine.step(batch, Instant::now())
    }

    /// Trains until all epochs are done, with an evaluation after each. Warns on standard error
    /// where this crate was compiled without optimisation.
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
        fit::run(&mut self.engine, train, validation, fit, observer)
    }

    /// Loss and errors on all images, with running statistics and without dropout. The loss of a
    /// network that has diverged is not finite.
    ///
    /// # Errors
    /// When images cannot be read, do not fit the network, or there are none.
    pub fn evaluate(&mut self, images: &dyn Batches) -> Result<Evaluation, TrainError> {
        // Nobody interrupts it.
        let (evaluation, _) = fit::evaluate(&mut self.engine, images, &Interrupt::new())?;
        Ok(evaluation)
    }

    /// Whether this process writes the run's files: of several that train together the first does.
    pub(super) fn writes(&self) -> bool {
        self.engine.writes
    }

    /// Steps done, those of the runs that this one goes on from included.
    pub fn steps(&self) -> u64 {
        self.engine.position.step
    }

    /// Where the run was resumed with another schedule.
    pub fn rescheduled(&self) -> &[Rescheduled] {
        &self.engine.rescheduled
    }

    /// The best evaluation so far.
    pub fn best(&self) -> Option<Best> {
        self.engine.position.best
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.engine.config
    }

    /// The executor that holds the numbers.
    pub fn executor(&self) -> &dyn Executor {
        self.engine.executor()
    }

    /// The executor that holds the numbers, to change them.
    pub fn executor_mut(&mut self) -> &mut dyn Executor {
        self.engine.executor_mut()
    }

    /// The model with the numbers as they are now.
    ///
    /// # Errors
    /// When the device fails.
    pub fn model(&mut self) -> Result<&mut N, TrainError> {
        self.engine.state()?.store_into(&mut self.model)?;
        Ok(&mut self.model)
    }

    /// The model with the numbers as they are now, and no trainer.
    ///
    /// # Errors
    /// When the device fails.
    pub fn into_model(mut self) -> Result<N, TrainError> {
        self.model()?;
        Ok(self.model)
    }
}

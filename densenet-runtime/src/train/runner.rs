//! Steps and evaluations of a network on an executor. It does not depend on the network's type, so
//! it is compiled once, with this crate's optimisation.

mod saved;

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::time::Instant;

use super::checkpoint::Position;
use super::population::Population;
use super::score::{BestBy, Predictions};
use super::tally::Tally;
use super::{Batches, Best, Config, Progress, Rescheduled, StepReport, TrainError, views};
use crate::executor::check_smoothing;
use crate::weights::State;
use crate::{Arena, Batch, Executor, Normalization, Outcome, Pending, Step};
use densenet_cpu::loss::Loss;

/// A network in training.
pub(super) struct Runner {
    network: String,
    executor: Box<dyn Executor>,
    pub(super) config: Config,
    pub(super) position: Position,
    /// The names of the classes: the network's, or else those of the training data; empty before
    /// they are known.
    pub(super) classes: Vec<String>,
    /// How the training data is normalised, once it is known.
    pub(super) normalization: Option<Normalization>,
    /// The thresholds of the classes by the last evaluation, if the settings ask for them.
    pub(super) thresholds: Vec<Option<f32>>,
    /// Recomputed running statistics, and the step after which they belong to the weights. The
    /// executor keeps those of training.
    precise: Option<(u64, Vec<f32>)>,
    /// The running statistics that are frozen.
    frozen_statistics: Vec<Range<usize>>,
    /// The changes of its schedule.
    pub(super) rescheduled: Vec<Rescheduled>,
    /// The notes in the run's files, by key.
    pub(super) notes: BTreeMap<String, String>,
    /// Whether this process writes the run's files.
    pub(super) writes: bool,
}

/// A step that was started.
pub(super) struct Started {
    before: Position,
    step: u64,
    learning_rate: f32,
    images: usize,
    /// Each piece's share of the step, and its outcome.
    pieces: Vec<(f64, Pending)>,
}

impl Started {
    /// Whether its outcome is known without waiting.
    pub(super) fn is_done(&self) -> bool {
        let mut pieces = self.pieces.iter();
        pieces.all(|(_, pending)| pending.outcome().is_some())
    }

    fn not_finite(&self, loss: f64) -> TrainError {
        TrainError::NotFinite {
            step: self.step,
            learning_rate: self.learning_rate,
            loss,
        }
    }
}

impl Runner {
    pub(super) fn new(
        network: &str,
        mut executor: Box<dyn Executor>,
        config: Config,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let plan = executor.plan();
        let frozen_statistics = config.frozen_statistics(plan)?;
        let groups = config.groups(plan)?;
        executor.set_groups(&groups)?;
        if executor.capacity() < config.piece() {
            return Err(TrainError::Config(format!(
                "the executor was made for {} images at a time, but the settings need {}",
                executor.capacity(),
                config.piece()
            )));
        }
        executor.set_loss_weights(&config.loss_weights)?;
        let names = executor.plan().class_names().iter();
        Ok(Self {
            network: network.to_string(),
            classes: names.map(ToString::to_string).collect(),
            normalization: None,
            thresholds: Vec::new(),
            writes: executor.rank() == 0,
            executor,
            config,
            position: Position::default(),
            precise: None,
            frozen_statistics,
            rescheduled: Vec::new(),
            notes: BTreeMap::new(),
        })
    }

    pub(super) fn executor(&self) -> &dyn Executor {
        &*self.executor
    }

    /// Drops recomputed statistics, since the caller may change the weights.
    pub(super) fn executor_mut(&mut self) -> &mut dyn Executor {
        self.precise = None;
        &mut *self.executor
    }

    /// The learning rate of the next step.
    pub(super) fn learning_rate(&self) -> f32 {
        self.config.schedule.learning_rate(self.progress())
    }

    /// Epochs done, with the fraction of the current one.
    pub(super) fn epochs_done(&self) -> f64 {
        self.progress().epochs_done()
    }

    fn progress(&self) -> Progress {
        Progress {
            epoch: self.position.epoch,
            epochs: self.config.epochs,
            step: self.position.epoch_step,
            // Without a length no epoch ever ends.
            steps: self.position.epoch_steps.unwrap_or(u64::MAX),
            plateaus: self.position.plateau.plateaus,
        }
    }

    /// Tells the schedule the score of the evaluation at the end of an epoch by which the best one is
    /// chosen.
    pub(super) fn note_evaluation(&mut self, by: BestBy, score: f64) {
        let progress = self.progress();
        let is_better =
            |value, best: f64, share| by.is_better(value, best * (1.0 + by.improved(share)));
        let state = &mut self.position.plateau;
        self.config
            .schedule
            .evaluated(progress, score, is_better, state);
    }

    /// Chooses thresholds by the predictions of an evaluation, if the settings ask for them.
    pub(super) fn choose_thresholds(&mut self, predictions: Option<&Predictions>) {
        if let (Some(rule), Some(predictions)) = (self.config.threshold, predictions) {
            self.thresholds = predictions.thresholds(rule);
            // A network may have more classes than its data.
            if !self.classes.is_empty() {
                self.thresholds.truncate(self.classes.len());
            }
        }
    }

    /// One step; `since` is when the previous step was done.
    pub(super) fn step(
        &mut self,
        batch: Batch<'_>,
        since: Instant,
    ) -> Result<StepReport, TrainError> {
        let started = self.start(batch)?;
        self.finish(started, since)
    }

    /// Starts a step, descent included. The device may still be computing when this returns. If the
    /// loss is not finite, nothing changes.
    pub(super) fn start(&mut self, batch: Batch<'_>) -> Result<Started, TrainError> {
        let learning_rate = self.learning_rate();
        if !learning_rate.is_finite() {
            return Err(TrainError::Config(format!(
                "the schedule gives step {} a learning rate of {learning_rate}; it must be finite",
                self.position.step + 1
            )));
        }
        let mut started = Started {
            before: self.position,
            step: self.position.step + 1,
            learning_rate,
            images: batch.images(self.executor.plan()),
            pieces: Vec::new(),
        };
        let pieces = self.pieces(batch, self.config.accumulation);
        // All pieces are checked before the first is computed, since it moves the running
        // statistics.
        let plan = self.executor.plan();
        batch.check(plan, usize::MAX)?;
        check_smoothing(batch.targets, self.piece_of_step(started.step, 0, 1.0))?;
        for piece in &pieces {
            piece.check(plan, self.executor.capacity())?;
        }
        if self.position.step == 0 && self.config.ema.is_some() {
            let (parameters, running) = (self.parameters()?, self.running()?);
            self.executor.write(Arena::Average, &parameters)?;
            self.executor.write(Arena::AverageRunning, &running)?;
        }
        for (index, &piece) in pieces.iter().enumerate() {
            let images = piece.images(self.executor.plan());
            let share = images as f64 / started.images.max(1) as f64;
            let step = self.piece_of_step(started.step, index, share);
            let pending = if index + 1 < pieces.len() {
                self.executor.start(piece, step)?
            } else {
                let descent = self.config.descent(self.progress(), started.step);
                self.executor.step(piece, step, descent)?
            };
            if let Some(outcome) = pending.outcome()
                && !outcome.loss.is_finite()
            {
                return Err(started.not_finite(outcome.loss));
            }
            started.pieces.push((share, pending));
        }
        self.position.step = started.step;
        self.position.epoch_step += 1;
        if let Some(epoch_steps) = self.position.epoch_steps {
            // Single steps may pass the end of an epoch.
            self.position.count_epochs(epoch_steps);
        }
        Ok(started)
    }

    /// The settings for one piece, which is a share of a step.
    fn piece_of_step(&self, step: u64, index: usize, share: f64) -> Step {
        Step {
            label_smoothing: self.config.label_smoothing,
            scale: share as f32,
            accumulate: index > 0,
            seed: mix(self.config.seed, step, index as u64),
        }
    }

    /// Checks that the current weights give a finite loss on a batch, because the weights of a run
    /// that has just diverged are still finite. Only the gradients change.
    pub(super) fn check_weights(&mut self, batch: Batch<'_>) -> Result<(), TrainError> {
        let Some(&piece) = self.pieces(batch, self.config.accumulation).first() else {
            return Ok(());
        };
        let running = self.running()?;
        let step = self.piece_of_step(self.position.step + 1, 0, 1.0);
        let outcome = self.executor.differentiate(piece, step)?;
        self.executor.write(Arena::Running, &running)?;
        if outcome.loss.is_finite() {
            return Ok(());
        }
        Err(TrainError::Diverged {
            what: "training",
            step: self.position.step,
            loss: outcome.loss,
        })
    }

    /// Waits for a step; `since` is when the previous step was done. If the loss is not finite, the
    /// run returns to its state before the step.
    pub(super) fn finish(
        &mut self,
        mut started: Started,
        since: Instant,
    ) -> Result<StepReport, TrainError> {
        let mut outcome = Outcome::default();
        for (share, pending) in std::mem::take(&mut started.pieces) {
            let came = self.executor.finish(pending)?;
            outcome.loss += share * came.loss;
            outcome.top1 += came.top1;
            outcome.top5 += came.top5;
            outcome.right += came.right;
            outcome.known += came.known;
        }
        if !outcome.loss.is_finite() {
            self.position = started.before;
            return Err(started.not_finite(outcome.loss));
        }
        Ok(StepReport {
            step: started.step,
            epoch: started.before.epoch + 1,
            loss: outcome.loss,
            learning_rate: started.learning_rate,
            images: started.images,
            top1: outcome.top1,
            top5: outcome.top5,
            right: outcome.right,
            known: outcome.known,
            seconds: since.elapsed().as_secs_f64(),
        })
    }

    /// Recomputes the running statistics from the first training batches of the current epoch, if the
    /// settings ask for precise BN. The executor keeps those of training.
    pub(super) fn recompute_statistics(&mut self, train: &dyn Batches) -> Result<(), TrainError> {
        let batches = self.config.precise_bn;
        let trained = self.running()?;
        let frozen: usize = self.frozen_statistics.iter().map(Range::len).sum();
        if batches == 0 || frozen == trained.len() {
            return Ok(());
        }
        let average = self.average()?;
        let in_training = self.exchange_parameters(average.as_ref())?;
        let mut population = Population::new(self.executor.plan());
        let (mut seen, mut failed) = (0, None);
        let visited = train.visit(self.position.epoch, 0, &mut |batch, _| {
            if let Err(error) = self.measure(batch, &trained, &mut population) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            seen += 1;
            match seen < batches {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        self.executor.write(Arena::Running, &trained)?;
        self.exchange_parameters(in_training.as_ref())?;
        visited.map_err(TrainError::Data)?;
        if let Some(error) = failed {
            return Err(error);
        }
        self.executor.total(population.sums())?;
        let mut statistics = population.statistics();
        for frozen in &self.frozen_statistics {
            statistics[frozen.clone()].copy_from_slice(&trained[frozen.clone()]);
        }
        self.precise = Some((self.position.step, statistics));
        Ok(())
    }

    /// Adds a batch's statistics to a population's. Overwrites the running ones.
    fn measure(
        &mut self,
        batch: Batch<'_>,
        trained: &[f32],
        population: &mut Population,
    ) -> Result<(), TrainError> {
        // Frozen BNs need theirs.
        let mut zeros = vec![0.0; trained.len()];
        for frozen in &self.frozen_statistics {
            zeros[frozen.clone()].copy_from_slice(&trained[frozen.clone()]);
        }
        for piece in self.pieces(batch, self.config.accumulation) {
            self.executor.write(Arena::Running, &zeros)?;
            self.executor.update_statistics(piece)?;
            let images = piece.images(self.executor.plan());
            population.add(&self.running()?, images);
        }
        Ok(())
    }

    /// Runs `work` with the weights and running statistics that are evaluated in the executor, and
    /// then puts those of training back.
    pub(super) fn with_evaluated<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        let average = self.average()?;
        if average.is_none() && self.precise().is_none() {
            return work(self);
        }
        let evaluated = self.state()?;
        let trained = self.running()?;
        let in_training = self.exchange_parameters(average.as_ref())?;
        self.executor.write(Arena::Running, &evaluated.running)?;
        let done = work(self);
        self.executor.write(Arena::Running, &trained)?;
        self.exchange_parameters(in_training.as_ref())?;
        done
    }

    /// Replaces the executor's parameters by those of a state, if there is one, and returns the old ones.
    fn exchange_parameters(&mut self, state: Option<&State>) -> Result<Option<State>, TrainError> {
        let Some(state) = state else {
            return Ok(None);
        };
        let before = State {
            parameters: self.parameters()?,
            running: Vec::new(),
        };
        self.executor.write(Arena::Parameters, &state.parameters)?;
        Ok(Some(before))
    }

    /// The average of the weights and running statistics, if the run has one yet.
    fn average(&self) -> Result<Option<State>, TrainError> {
        if self.config.ema.is_none() || self.position.step == 0 {
            return Ok(None);
        }
        let plan = self.executor.plan();
        Ok(Some(State {
            parameters: self.read(Arena::Average, plan.parameter_count())?,
            running: self.read(Arena::AverageRunning, plan.running_count())?,
        }))
    }

    /// The running statistics that were recomputed with the current weights, if they were.
    fn precise(&self) -> Option<&[f32]> {
        let (step, statistics) = self.precise.as_ref()?;
        (*step == self.position.step).then_some(statistics)
    }

    /// Adds a batch to an evaluation. It has `views` consecutive views of each image.
    pub(super) fn evaluate(
        &mut self,
        batch: Batch<'_>,
        views: usize,
        into: &mut Tally,
    ) -> Result<(), TrainError> {
        let classes = self.executor.plan().classes();
        let images = batch.targets.images(classes);
        let pieces = images.div_ceil(self.executor.capacity());
        let keeps = into.keeps(batch.targets);
        let mut logits = Vec::new();
        for piece in self.pieces(batch, pieces) {
            let outcome = self.executor.evaluate(piece)?;
            let images = piece.targets.images(classes);
            if views == 1 {
                into.add(outcome, images);
            }
            if views > 1 || keeps {
                let start = logits.len();
                logits.resize(start + images * classes, 0.0);
                self.executor.logits(&mut logits[start..])?;
            }
        }
        if views > 1 {
            let (means, targets) = views::merged(&logits, batch.targets, views, classes);
            let loss = Loss {
                targets: targets.targets(),
                weights: &self.config.loss_weights,
                smoothing: 0.0,
            };
            into.add(loss.of(&means, classes, None), images / views);
            if keeps {
                let means: Vec<f32> = means.iter().map(|&mean| mean as f32).collect();
                into.keep(&means, targets.targets())?;
            }
        } else if keeps {
            into.keep(&logits, batch.targets)?;
        }
        Ok(())
    }

    /// Adds the evaluations of the other ranks.
    pub(super) fn total(&mut self, tally: Tally) -> Result<Tally, TrainError> {
        tally.total(&mut *self.executor)
    }

    /// Whether this is true on any rank.
    pub(super) fn does_anyone(&mut self, own: bool) -> Result<bool, TrainError> {
        let mut sums = [f64::from(u8::from(own))];
        self.executor.total(&mut sums)?;
        Ok(sums[0] > 0.0)
    }

    /// Takes the best evaluation from the first rank, which alone reads the best checkpoint.
    pub(super) fn share_best(&mut self) -> Result<(), TrainError> {
        // JSON keeps every bit of a score; a line ends each rank's.
        let mut own = serde_json::to_vec(&self.position.best).unwrap_or_default();
        own.push(b'\n');
        let own: Vec<f64> = own.into_iter().map(f64::from).collect();
        let all = self.executor.gather(&own)?;
        let all: Vec<u8> = all.into_iter().map(|byte| byte as u8).collect();
        let mut all = serde_json::Deserializer::from_slice(&all).into_iter::<Option<Best>>();
        if let Some(Ok(first)) = all.next() {
            self.position.best = first;
        }
        Ok(())
    }

    /// Divides a batch into pieces of nearly equal size; at most one for each image.
    fn pieces<'a>(&self, batch: Batch<'a>, pieces: usize) -> Vec<Batch<'a>> {
        let plan = self.executor.plan();
        let (stem, classes) = (plan.stem(), plan.classes());
        let image = stem.channels * stem.height * stem.width;
        let total = batch.targets.images(classes);
        let values = batch.pixels.count();
        let pieces = pieces.min(total);
        // A batch that does not fit is passed on unchanged: the executor reports what is wrong.
        if pieces <= 1 || values != total * image {
            return vec![batch];
        }
        (0..pieces)
            .map(|piece| {
                let images = piece * total / pieces..(piece + 1) * total / pieces;
                let range = images.start * image..images.end * image;
                Batch {
                    pixels: batch.pixels.slice(range),
                    targets: batch.targets.slice(images, classes),
                }
            })
            .collect()
    }

    /// The weights and running statistics that are evaluated: averages, if the run has any.
    pub(super) fn state(&self) -> Result<State, TrainError> {
        let mut state = match self.average()? {
            Some(average) => average,
            None => State {
                parameters: self.parameters()?,
                running: self.running()?,
            },
        };
        if let Some(precise) = self.precise() {
            state.running = precise.to_vec();
        }
        Ok(state)
    }

    /// The parameters in the executor.
    fn parameters(&self) -> Result<Vec<f32>, TrainError> {
        self.read(Arena::Parameters, self.executor.plan().parameter_count())
    }

    /// The running statistics in the executor.
    fn running(&self) -> Result<Vec<f32>, TrainError> {
        self.read(Arena::Running, self.executor.plan().running_count())
    }

    fn read(&self, arena: Arena, length: usize) -> Result<Vec<f32>, TrainError> {
        let mut values = vec![0.0; length];
        self.executor.read(arena, &mut values)?;
        Ok(values)
    }
}

/// A seed for a piece of a step (SplitMix64's finaliser over each number in turn).
fn mix(seed: u64, step: u64, piece: u64) -> u64 {
    [step, piece].into_iter().fold(seed, |state, number| {
        let mut z = state
            .wrapping_add(number)
            .wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

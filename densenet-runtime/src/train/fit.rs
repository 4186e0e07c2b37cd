//! The loop over epochs.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::CheckpointError;
use super::checkpoint;
use super::runner::{Runner, Started};
use super::score::Predictions;
use super::tally::Tally;
use super::{
    Batches, Best, BestBy, Ending, Evaluation, Interrupt, Observer, Outline, StepReport, Summary,
    TrainError,
};
use crate::{Batch, Targets, classes, tell};

/// What a run does besides training. Processes that train together need the same settings; rank 0
/// writes the files.
#[derive(Clone, Debug, Default)]
pub struct Fit {
    /// Ends the run after this many steps in all, including those of the run that was resumed. The
    /// learning rate does not depend on it.
    pub steps: Option<u64>,
    /// Writes a checkpoint here after each evaluation and when the run is interrupted.
    pub checkpoint: Option<PathBuf>,
    /// Also writes it after every this many steps.
    pub checkpoint_every: Option<u64>,
    /// Writes a checkpoint here after each evaluation that is the best so far by
    /// [`Config::best_by`](super::Config::best_by): on SVHN the paper tests the model with the
    /// lowest validation error (section 4.2).
    pub best: Option<PathBuf>,
    /// Ends the run (early stopping) after this many epochs in a row whose evaluations did not
    /// improve on the best one.
    pub patience: Option<u32>,
    /// Ends the run after the current step. If one rank is asked to stop, all do.
    pub interrupt: Interrupt,
}

/// A run in progress.
struct Run<'a> {
    runner: &'a mut Runner,
    fit: &'a Fit,
    observer: &'a mut dyn Observer,
    outline: Outline,
    last: Option<StepReport>,
    evaluation: Option<Evaluation>,
    /// Whether the run must end on all ranks.
    interrupted: bool,
}

pub(super) fn run(
    runner: &mut Runner,
    train: &dyn Batches,
    validation: &dyn Batches,
    fit: &Fit,
    observer: &mut dyn Observer,
) -> Result<Summary, TrainError> {
    let own = |path: &Option<PathBuf>| path.clone().filter(|_| runner.writes);
    let fit = &Fit {
        checkpoint: own(&fit.checkpoint),
        best: own(&fit.best),
        ..fit.clone()
    };
    let epoch_steps = train.batches();
    if epoch_steps == 0 {
        return Err(TrainError::NoImages("training"));
    }
    check_network_classes(runner, "training", train)?;
    check_network_classes(runner, "validation", validation)?;
    let classes = train.classes();
    checkpoint::check_classes(&runner.classes, classes)?;
    let normalization = train.normalization();
    checkpoint::check_normalization(runner.normalization.as_ref(), normalization)?;
    let known = runner.position.epoch_steps.replace(epoch_steps);
    if known.is_none() {
        runner.position.count_epochs(epoch_steps);
    }
    if let Some(found) = known
        && found != epoch_steps
    {
        runner.position.epoch_steps = Some(found);
        return Err(CheckpointError::Data {
            found,
            expected: epoch_steps,
        }
        .into());
    }
    if !classes.is_empty() {
        runner.classes = classes.to_vec();
    }
    if let Some(normalization) = normalization {
        runner.normalization = Some(normalization.clone());
    }
    warn_of_normalization(runner, validation);
    let all = u64::from(runner.config.epochs).saturating_mul(epoch_steps);
    let outline = Outline {
        step: runner.position.step,
        epoch_steps,
        last_step: fit.steps.map_or(all, |steps| steps.min(all)),
        evaluation_due: runner.position.epoch_step >= epoch_steps,
    };
    let mut run = Run {
        runner,
        fit,
        observer,
        outline,
        last: None,
        evaluation: None,
        interrupted: false,
    };
    // If a file is refused, the run ends before it changes any.
    let best = run.best_there()?;
    run.observer.begin(&outline)?;
    for change in &run.runner.rescheduled {
        if change.step == outline.step {
            run.observer.rescheduled(change)?;
        }
    }
    run.settle_best(best)?;
    run.runner.share_best()?;
    let ending = run.epochs(train, validation)?;
    let summary = Summary {
        ending,
        step: run.runner.position.step,
        last: run.last,
        evaluation: run.evaluation,
        best: run.runner.position.best,
    };
    run.observer.end(&summary)?;
    // No rank goes on before the files of the first are written.
    run.runner.does_anyone(false)?;
    Ok(summary)
}

impl Run<'_> {
    fn epochs(
        &mut self,
        train: &dyn Batches,
        validation: &dyn Batches,
    ) -> Result<Ending, TrainError> {
        if self.runner.position.epoch >= self.runner.config.epochs {
            return Ok(Ending::Finished);
        }
        if self.steps_are_done() && self.runner.position.epoch_step < self.outline.epoch_steps {
            return Ok(Ending::StepsDone);
        }
        // An evaluation that is due comes first: it may be the best.
        if !self.outline.evaluation_due && self.is_stalled() {
            return Ok(Ending::Stalled);
        }
        loop {
            if self.epoch(train)?.is_break() {
                return self.interrupted();
            }
            self.runner.recompute_statistics(train)?;
            let Evaluated {
                evaluation,
                is_whole,
                predictions,
            } = evaluate(self.runner, validation, &self.fit.interrupt, false)?;
            if !evaluation.loss.is_finite() {
                return Err(TrainError::Diverged {
                    what: "validation",
                    step: evaluation.step,
                    loss: evaluation.loss,
                });
            }
            if !is_whole {
                return self.interrupted();
            }
            self.runner.choose_thresholds(predictions.as_ref());
            let is_best = self.evaluated(evaluation)?;
            let mid_epoch = self.runner.position.epoch_step < self.outline.epoch_steps;
            if !mid_epoch {
                // The effects of an evaluation must not depend on where a run was interrupted.
                if let Some(score) = evaluation.score() {
                    self.runner.note_evaluation(evaluation.by, score);
                }
                let position = &mut self.runner.position;
                position.epoch += 1;
                position.epoch_step = 0;
            }
            // The best is written first: if the run is killed between the two, it is resumed from
            // the previous checkpoint and finds the same best again.
            if is_best {
                self.checkpoint(self.fit.best.as_deref())?;
            }
            self.checkpoint(self.fit.checkpoint.as_deref())?;
            if self.runner.position.epoch >= self.runner.config.epochs {
                return Ok(Ending::Finished);
            }
            if self.steps_are_done() {
                return Ok(Ending::StepsDone);
            }
            if self.is_stalled() {
                let stale = self.stale();
                self.observer.notice(&format!(
                    "the run ends: the best evaluation is {stale} epochs old"
                ))?;
                return Ok(Ending::Stalled);
            }
        }
    }

    /// Epochs since the best evaluation.
    fn stale(&self) -> u64 {
        let position = &self.runner.position;
        position.best.map_or(0, |best| {
            position.step.saturating_sub(best.step) / self.outline.epoch_steps
        })
    }

    /// Whether the evaluations have stopped improving for as long as the run is patient.
    fn is_stalled(&self) -> bool {
        let patience = self.fit.patience;
        patience.is_some_and(|patience| self.stale() >= u64::from(patience.max(1)))
    }

    /// The evaluation of the existing best checkpoint.
    fn best_there(&self) -> Result<Option<Best>, TrainError> {
        match self.fit.best.as_deref() {
            // A new run has no best checkpoint, and overwrites an old one.
            Some(path) if self.outline.step > 0 && path.exists() => {
                Ok(Some(self.runner.best_in(path)?))
            }
            _ => Ok(None),
        }
    }

    /// Compares the file of the best checkpoint with what the resumed checkpoint says about it.
    /// They differ if a run was killed between writing the two, or if a file was moved.
    fn settle_best(&mut self, found: Option<Best>) -> Result<(), TrainError> {
        let Some(path) = self.fit.best.as_deref() else {
            return Ok(());
        };
        if self.outline.step == 0 {
            return Ok(());
        }
        let expected = self.runner.position.best;
        let Some(best) = expected.filter(|_| found != expected) else {
            self.runner.position.best = found;
            return Ok(());
        };
        let is_better = |found: Best| !best.by.is_better(best.score, found.score);
        if best.step == self.outline.step && !found.is_some_and(is_better) {
            // The best checkpoint itself was resumed.
            return self.checkpoint(Some(path));
        }
        self.runner.position.best = found;
        let path = path.display();
        match found {
            // The killed run wrote it after the checkpoint.
            Some(found) if is_better(found) => Ok(()),
            Some(Best { step, .. }) => self.observer.notice(&format!(
                "{path} is of step {step}; the better one of step {} is lost, so this one counts",
                best.step
            )),
            None => self.observer.notice(&format!(
                "{path}, of step {}, is missing; the next evaluation counts as the best so far",
                best.step
            )),
        }
    }

    /// The remaining steps of an epoch, or the requested number. Breaks on an interrupt.
    fn epoch(&mut self, train: &dyn Batches) -> Result<ControlFlow<()>, TrainError> {
        let (epoch, first) = (self.runner.position.epoch, self.runner.position.epoch_step);
        if first >= self.outline.epoch_steps {
            return Ok(ControlFlow::Continue(()));
        }
        let mut since = Instant::now();
        let mut ended = Ok(ControlFlow::Continue(()));
        // A step whose outcome is not known yet.
        let mut pending = None;
        let visited = train.visit(epoch, first, &mut |batch, _| {
            ended = self.advance(batch, &mut pending, &mut since);
            match ended {
                Ok(ControlFlow::Continue(())) if !self.is_at_end() => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
        if let Some(started) = pending {
            ended = self.finish(started, &mut since);
        }
        visited.map_err(TrainError::Data)?;
        let ended = ended?;
        let done = self.runner.position.epoch_step;
        if ended.is_continue() && done < self.outline.epoch_steps && !self.steps_are_done() {
            return Err(TrainError::Data(
                format!(
                    "the training data ended after {done} of the {} batches of an epoch",
                    self.outline.epoch_steps
                )
                .into(),
            ));
        }
        Ok(ended)
    }

    /// Starts a step, and reports the previous one. So a device computes while its next batch is
    /// loaded. If something depends on the step's outcome, this waits for it.
    fn advance(
        &mut self,
        batch: Batch<'_>,
        pending: &mut Option<Started>,
        since: &mut Instant,
    ) -> Result<ControlFlow<()>, TrainError> {
        let started = self.runner.start(batch);
        if let Some(before) = pending.take() {
            // This does not break: nothing that depends on this step's outcome is due.
            let _ = self.finish(before, since)?;
        }
        let started = started?;
        if !started.is_done() && !self.waits_for(self.runner.position.step) {
            *pending = Some(started);
            return Ok(ControlFlow::Continue(()));
        }
        let ended = self.finish(started, since)?;
        // At the end of an epoch or a run, the evaluation comes before the checkpoint.
        let is_due = self.is_checkpoint_due(self.runner.position.step) && !self.is_at_end();
        if is_due || ended.is_break() {
            let is_written = self.fit.checkpoint.is_some();
            if self.runner.does_anyone(is_written)? {
                self.runner.check_weights(batch)?;
            }
        }
        if is_due && ended.is_continue() {
            self.checkpoint(self.fit.checkpoint.as_deref())?;
        }
        Ok(ended)
    }

    /// Waits for a step and reports it.
    fn finish(
        &mut self,
        started: Started,
        since: &mut Instant,
    ) -> Result<ControlFlow<()>, TrainError> {
        let report = self.runner.finish(started, *since)?;
        *since = Instant::now();
        self.stepped(report)
    }

    /// Whether anything after this step needs its outcome or its weights.
    fn waits_for(&self, step: u64) -> bool {
        self.is_at_end() || self.is_checkpoint_due(step) || self.interrupted
    }

    fn is_checkpoint_due(&self, step: u64) -> bool {
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        self.fit.checkpoint_every.is_some_and(due)
    }

    /// Whether the epoch or the run ends with the steps that were started.
    fn is_at_end(&self) -> bool {
        self.runner.position.epoch_step == self.outline.epoch_steps || self.steps_are_done()
    }

    fn stepped(&mut self, report: StepReport) -> Result<ControlFlow<()>, TrainError> {
        self.last = Some(report);
        self.observer.step(&report)?;
        // All ranks learn of it after the same step, so that none waits for one that has ended.
        let asked = self.fit.interrupt.is_requested();
        self.interrupted = self.runner.does_anyone(asked)?;
        Ok(match self.interrupted {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }

    fn steps_are_done(&self) -> bool {
        self.runner.position.step >= self.outline.last_step
    }

    /// Records an evaluation, and returns whether it is the best so far.
    fn evaluated(&mut self, evaluation: Evaluation) -> Result<bool, TrainError> {
        self.evaluation = Some(evaluation);
        let by = evaluation.by;
        let score = evaluation.score();
        let best = &mut self.runner.position.best;
        let is_best = score.is_some_and(|score| {
            best.is_none_or(|best| best.by != by || by.is_better(score, best.score))
        });
        if let Some(score) = score.filter(|_| is_best) {
            *best = Some(Best {
                step: evaluation.step,
                by,
                score,
            });
        }
        self.observer.evaluation(&evaluation)?;
        if score.is_none() {
            let why = match by {
                BestBy::Default | BestBy::Top1Error | BestBy::Top5Error => {
                    "a picture may have several classes"
                }
                _ => "no class has both positive and negative labels",
            };
            self.observer.notice(&format!(
                "this evaluation has no {by}, which selects the best one: {why}; it cannot be the best"
            ))?;
        }
        Ok(is_best)
    }

    fn checkpoint(&mut self, path: Option<&Path>) -> Result<(), TrainError> {
        let Some(path) = path else {
            return Ok(());
        };
        self.runner.save(path)?;
        self.observer.checkpoint(path, self.runner.position.step)
    }

    fn interrupted(&mut self) -> Result<Ending, TrainError> {
        self.checkpoint(self.fit.checkpoint.as_deref())?;
        Ok(Ending::Interrupted)
    }
}

/// Warns if evaluated images are normalised differently from those of training.
pub(super) fn warn_of_normalization(runner: &Runner, evaluated: &dyn Batches) {
    let words = ("training", "the evaluated data");
    let training = runner.normalization.as_ref();
    let difference =
        training.and_then(|training| training.difference(words, evaluated.normalization()?));
    if let Some(difference) = difference {
        tell!("warning: images are not normalised as in training: {difference}");
    }
}

/// Checks that the data's labels mean the classes that the network names.
fn check_network_classes(
    runner: &Runner,
    what: &'static str,
    data: &dyn Batches,
) -> Result<(), TrainError> {
    let network = ("the network", runner.executor().plan().class_names());
    match classes::difference(network, ("the data", data.classes())) {
        Some(difference) => Err(TrainError::Classes { what, difference }),
        None => Ok(()),
    }
}

/// What came of an evaluation.
pub(super) struct Evaluated {
    pub(super) evaluation: Evaluation,
    /// Whether all images were evaluated.
    pub(super) is_whole: bool,
    /// The predictions of all ranks, if they were asked for or needed.
    pub(super) predictions: Option<Predictions>,
}

/// Evaluates on all images, or until it is interrupted, but on at least one batch, since the next
/// checkpoint needs evidence that the weights are sound. Keeps the predictions if they are asked
/// for, or if the scores need them.
pub(super) fn evaluate(
    runner: &mut Runner,
    validation: &dyn Batches,
    interrupt: &Interrupt,
    keeps: bool,
) -> Result<Evaluated, TrainError> {
    check_network_classes(runner, "validation", validation)?;
    let start = Instant::now();
    let (step, epoch) = (runner.position.step, runner.epochs_done());
    let config = &runner.config;
    let keeps = keeps || config.best_by.needs_predictions() || config.threshold.is_some();
    let mut tally = Tally::new(runner.executor().plan().classes(), keeps);
    let interrupted = runner.with_evaluated(|runner| {
        let mut ended = Ok(());
        let mut interrupted = false;
        validation
            .visit(0, 0, &mut |batch, views| {
                interrupted = tally.images > 0 && interrupt.is_requested();
                if interrupted {
                    return ControlFlow::Break(());
                }
                match runner.evaluate(batch, views, &mut tally) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        ended = Err(error);
                        ControlFlow::Break(())
                    }
                }
            })
            .map_err(TrainError::Data)?;
        ended.map(|()| interrupted)
    })?;
    // Each rank evaluates at its own pace; at the end, interrupted or not, all add up their results.
    let tally = runner.total(tally)?;
    let is_whole = !runner.does_anyone(interrupted)?;
    if tally.images == 0 {
        return Err(TrainError::NoImages("validation"));
    }
    let outcome = tally.outcome();
    let predictions = tally.predictions();
    let independent =
        predictions.is_some_and(|all| matches!(all.targets(), Targets::Independent(_)));
    let by = runner.config.best_by.of_targets(independent);
    let evaluation = Evaluation {
        step,
        epoch,
        images: tally.images,
        classes: runner.executor().plan().classes(),
        loss: outcome.loss,
        top1: outcome.top1,
        top5: outcome.top5,
        independent,
        right: outcome.right,
        known: outcome.known,
        // Scores mean nothing after a divergence.
        means: predictions
            .filter(|_| outcome.loss.is_finite())
            .map(|all| all.scores().means),
        by,
        best: runner.position.best.filter(|best| best.by == by),
        seconds: start.elapsed().as_secs_f64(),
    };
    Ok(Evaluated {
        evaluation,
        is_whole,
        predictions: tally.into_predictions(),
    })
}

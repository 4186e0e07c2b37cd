//! A run to its files and back.

use std::path::Path;

use super::super::checkpoint::{self, Header, Numbers};
use super::super::schedule::PlateauState;
use super::super::{Best, CheckpointError, Rescheduled, TrainError};
use super::Runner;
use crate::Arena;

/// Whether a run may be resumed with another schedule and another number of epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reschedule {
    Refuse,
    Allow,
}

impl Runner {
    pub(in crate::train) fn save(&self, path: &Path) -> Result<(), TrainError> {
        let plan = self.executor.plan();
        let parameters = plan.parameter_count();
        let ema = self.average()?;
        let numbers = Numbers {
            state: self.state()?,
            momentum: self.read(Arena::Momentum, parameters)?,
            second_moments: match self.config.adapts() {
                true => Some(self.read(Arena::SecondMoments, parameters)?),
                false => None,
            },
            trained_parameters: match ema {
                Some(_) => Some(self.parameters()?),
                None => None,
            },
            trained: match (self.precise(), &ema) {
                (None, None) => None,
                _ => Some(self.running()?),
            },
            ema,
        };
        let mut header = Header::new(
            &self.network,
            plan,
            &self.config,
            self.position,
            &self.classes,
            &self.rescheduled,
        );
        header.normalization.clone_from(&self.normalization);
        header.thresholds.clone_from(&self.thresholds);
        let notes = self.notes.clone();
        Ok(checkpoint::save(path, plan, &header, &numbers, notes)?)
    }

    /// Resumes a run from its checkpoint. After an error nothing has changed, unless the device
    /// failed.
    pub(in crate::train) fn restore(&mut self, path: &Path) -> Result<(), TrainError> {
        self.take_up(path, Reschedule::Refuse)
    }

    /// The same, but the schedule and the number of epochs may differ.
    pub(in crate::train) fn restore_with_schedule(
        &mut self,
        path: &Path,
    ) -> Result<(), TrainError> {
        self.take_up(path, Reschedule::Allow)
    }

    fn take_up(&mut self, path: &Path, reschedule: Reschedule) -> Result<(), TrainError> {
        let (header, numbers) = checkpoint::load(path, &self.network, self.executor.plan())?;
        let mut run = header.config.clone();
        let mut rescheduled = header.rescheduled;
        let is_other_schedule = run.schedule != self.config.schedule;
        let is_rescheduled = is_other_schedule || run.epochs != self.config.epochs;
        if reschedule == Reschedule::Allow && is_rescheduled {
            rescheduled.push(Rescheduled {
                step: header.position.step,
                epochs: self.config.epochs,
                schedule: self.config.schedule.clone(),
                epochs_before: run.epochs,
                schedule_before: run.schedule,
            });
            run.epochs = self.config.epochs;
            run.schedule = self.config.schedule.clone();
        }
        let differences = self.config.differences(&run);
        if !differences.is_empty() {
            return Err(CheckpointError::Settings {
                path: path.to_path_buf(),
                differences,
            }
            .into());
        }
        let trained = numbers.trained_parameters.as_ref();
        let parameters = trained.unwrap_or(&numbers.state.parameters);
        self.executor.write(Arena::Parameters, parameters)?;
        let trained = numbers.trained.as_ref();
        self.executor
            .write(Arena::Running, trained.unwrap_or(&numbers.state.running))?;
        self.executor.write(Arena::Momentum, &numbers.momentum)?;
        if let Some(second_moments) = &numbers.second_moments {
            self.executor.write(Arena::SecondMoments, second_moments)?;
        }
        if let Some(ema) = &numbers.ema {
            self.executor.write(Arena::Average, &ema.parameters)?;
            self.executor.write(Arena::AverageRunning, &ema.running)?;
        }
        self.position = header.position;
        if is_other_schedule {
            // It starts at its own learning rate.
            self.position.plateau = PlateauState::default();
        }
        // Evaluated statistics that are neither those of training nor averages were recomputed.
        let average = numbers.ema.as_ref().map(|ema| &ema.running);
        let is_precise = numbers.trained.is_some() && average != Some(&numbers.state.running);
        let precise = is_precise.then_some(numbers.state.running);
        self.precise = precise.map(|running| (header.position.step, running));
        // An older checkpoint has no names of classes; the network may have them.
        if !header.classes.is_empty() || self.executor.plan().class_names().is_empty() {
            self.classes = header.classes;
        }
        self.normalization = header.normalization;
        self.thresholds = header.thresholds;
        self.rescheduled = rescheduled;
        Ok(())
    }

    /// The evaluation of the best checkpoint in a file.
    pub(in crate::train) fn best_in(&self, path: &Path) -> Result<Best, CheckpointError> {
        checkpoint::best(path, &self.network, self.executor.plan())
    }
}

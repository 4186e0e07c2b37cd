//! Observers of a run.

use std::path::Path;

use super::{Evaluation, Outline, Rescheduled, StepReport, Summary, TrainError};

/// Watches a run: a progress bar, a file of metrics, a picture. An error stops the run.
///
/// A vector of boxed observers is an observer, and tells each in turn; `()` watches nothing.
#[expect(unused_variables, reason = "named for those who implement it")]
pub trait Observer {
    /// The run starts or is resumed.
    ///
    /// # Errors
    /// When the observer cannot do its work.
    fn begin(&mut self, outline: &Outline) -> Result<(), TrainError> {
        Ok(())
    }

    /// The run is resumed with another schedule.
    ///
    /// # Errors
    /// When the observer cannot do its work.
    fn rescheduled(&mut self, change: &Rescheduled) -> Result<(), TrainError> {
        Ok(())
    }

    /// Something has happened that the user should know.
    ///
    /// # Errors
    /// When the observer cannot do its work.
    fn notice(&mut self, text: &str) -> Result<(), TrainError> {
        Ok(())
    }

    /// A step is done.
    ///
    /// # Errors
    /// When the observer cannot do its work.
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        Ok(())
    }

    /// An evaluation is done.
    ///
    /// # Errors
    /// When the observer cannot do its work.
    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        Ok(())
    }

    /// A checkpoint is written.
    ///
    /// # Errors
    /// When the observer cannot do its work.
    fn checkpoint(&mut self, path: &Path, step: u64) -> Result<(), TrainError> {
        Ok(())
    }

    /// The run is over.
    ///
    /// # Errors
    /// When the observer cannot do its work.
    fn end(&mut self, summary: &Summary) -> Result<(), TrainError> {
        Ok(())
    }
}

impl Observer for () {}

impl Observer for Vec<Box<dyn Observer + '_>> {
    fn begin(&mut self, outline: &Outline) -> Result<(), TrainError> {
        self.iter_mut().try_for_each(|each| each.begin(outline))
    }

    fn rescheduled(&mut self, change: &Rescheduled) -> Result<(), TrainError> {
        self.iter_mut()
            .try_for_each(|each| each.rescheduled(change))
    }

    fn notice(&mut self, text: &str) -> Result<(), TrainError> {
        self.iter_mut().try_for_each(|each| each.notice(text))
    }

    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        self.iter_mut().try_for_each(|each| each.step(report))
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        self.iter_mut()
            .try_for_each(|each| each.evaluation(evaluation))
    }

    fn checkpoint(&mut self, path: &Path, step: u64) -> Result<(), TrainError> {
        self.iter_mut()
            .try_for_each(|each| each.checkpoint(path, step))
    }

    fn end(&mut self, summary: &Summary) -> Result<(), TrainError> {
        self.iter_mut().try_for_each(|each| each.end(summary))
    }
}

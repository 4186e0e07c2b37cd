//! Who watches a run.

use std::path::Path;

use super::{Evaluation, Outline, Rescheduled, StepReport, Summary, TrainError};

/// Watches a run: a progress bar, a file of metrics, a picture. An error stops the run.
///
/// A vector of boxed observers is an observer, and tells each in turn; `()` watches nothing.
#[expect(unused_variables, reason = "named for those who implement it")]
pub trait Observer {
    /// The run starts or goes on.
    ///
    /// # Errors
    /// Whatever keeps the observer from watching.
    fn begin(&mut self, outline: &Outline) -> Result<(), TrainError> {
        Ok(())
    }

    /// The run goes on with another schedule.
    ///
    /// # Errors
    /// Whatever keeps the observer from watching.
    fn rescheduled(&mut self, change: &Rescheduled) -> Result<(), TrainError> {
        Ok(())
    }

    /// Something has happened that whoever started the run should know.
    ///
    /// # Errors
    /// Whatever keeps the observer from watching.
    fn notice(&mut self, text: &str) -> Result<(), TrainError> {
        Ok(())
    }

    /// A step is done.
    ///
    /// # Errors
    /// Whatever keeps the observer from watching.
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        Ok(())
    }

    /// An evaluation is done.
    ///
    /// # Errors
    /// Whatever keeps the observer from watching.
    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        Ok(())
    }

    /// A checkpoint is written.
    ///
    /// # Errors
    /// Whatever keeps the observer from watching.
    fn checkpoint(&mut self, path: &Path, step: u64) -> Result<(), TrainError> {
        Ok(())
    }

    /// The run is over.
    ///
    /// # Errors
    /// Whatever keeps the observer from watching.
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

//! Who watches a run.

use std::path::Path;

use super::{Evaluation, Outline, StepReport, Summary, TrainError};

/// Watches a run: a progress bar, a file of metrics, a picture. An error stops the run.
///
/// Tuples of observers are observers; so is `()`, which watches nothing.
#[expect(unused_variables, reason = "named for those who implement it")]
pub trait Observer {
    /// The run starts or goes on.
    ///
    /// # Errors
    /// Whatever keeps the observer from watching.
    fn begin(&mut self, outline: &Outline) -> Result<(), TrainError> {
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

macro_rules! tuple {
    ($($name:ident)*) => {
        impl<$($name: Observer),*> Observer for ($($name,)*) {
            tuple!(@each [$($name)*] begin(outline: &Outline));
            tuple!(@each [$($name)*] step(report: &StepReport));
            tuple!(@each [$($name)*] evaluation(evaluation: &Evaluation));
            tuple!(@each [$($name)*] checkpoint(path: &Path, step: u64));
            tuple!(@each [$($name)*] end(summary: &Summary));
        }
    };
    (@each [$($name:ident)*] $method:ident($($arg:ident: $type:ty),*)) => {
        #[expect(non_snake_case, reason = "named after their types")]
        fn $method(&mut self, $($arg: $type),*) -> Result<(), TrainError> {
            let ($($name,)*) = self;
            $($name.$method($($arg),*)?;)*
            Ok(())
        }
    };
}

impl Observer for () {}
tuple!(A);
tuple!(A B);
tuple!(A B C);
tuple!(A B C D);

impl<O: Observer + ?Sized> Observer for &mut O {
    fn begin(&mut self, outline: &Outline) -> Result<(), TrainError> {
        (**self).begin(outline)
    }

    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        (**self).step(report)
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        (**self).evaluation(evaluation)
    }

    fn checkpoint(&mut self, path: &Path, step: u64) -> Result<(), TrainError> {
        (**self).checkpoint(path, step)
    }

    fn end(&mut self, summary: &Summary) -> Result<(), TrainError> {
        (**self).end(summary)
    }
}

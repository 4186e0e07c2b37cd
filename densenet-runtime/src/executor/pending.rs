//! A batch whose result may still be pending.

use super::{ExecutorError, Outcome};

/// A batch that was [started](super::Executor::start): its result, or the number to ask for it
/// with.
#[derive(Debug)]
#[must_use = "ask for the outcome with `Executor::finish`"]
pub struct Pending(Result<Outcome, u64>);

impl Pending {
    /// A batch that is done.
    pub fn done(outcome: Outcome) -> Self {
        Self(Ok(outcome))
    }

    /// A batch that is not done. The number identifies it to its executor.
    pub fn later(number: u64) -> Self {
        Self(Err(number))
    }

    /// Its result, if it is done.
    pub fn outcome(&self) -> Option<Outcome> {
        self.0.ok()
    }

    /// Its number, if it is not done.
    pub fn number(&self) -> Option<u64> {
        self.0.err()
    }

    pub(crate) fn into_outcome(self) -> Result<Outcome, ExecutorError> {
        self.0.map_err(|number| {
            ExecutorError::Device(format!("batch {number} was started by another executor").into())
        })
    }
}

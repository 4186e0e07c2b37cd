//! How good predictions are: errors, AUROC, average precision, calibration, and thresholds for
//! decisions.
//!
//! [`Predictions`] are the logits and the targets of a whole evaluation. They are scored as in
//! scikit-learn, ties included. [`BestBy`] says which score makes an evaluation the best of a run.

mod best_by;
mod calibration;
mod curve;
mod predictions;
mod ranking;

pub use best_by::{BestBy, UnknownScore};
pub use calibration::CalibrationBin;
pub use curve::Curve;
pub(super) use predictions::Kept;
pub use predictions::{ClassScore, MeanScores, Predictions, Scores};
pub use ranking::{ThresholdRule, UnknownRule};

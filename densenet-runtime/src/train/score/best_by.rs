//! Which evaluation of a run is the best.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The score by which an evaluation is the best of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BestBy {
    /// The top-1 error of classes and probabilities, the mean AUROC of independent targets.
    #[default]
    Default,
    /// The share of images whose class does not have the highest logit.
    Top1Error,
    /// The share of images whose class is not among the five highest logits.
    Top5Error,
    /// The loss.
    Loss,
    /// The mean of the accuracies of the classes.
    Accuracy,
    /// The mean of the areas under the receiver operating characteristics of the classes.
    Auroc,
    /// The mean of the average precisions of the classes.
    AveragePrecision,
    /// The expected calibration error.
    CalibrationError,
}

impl BestBy {
    /// The score itself: which one the default is depends on the targets.
    pub(in crate::train) fn of_targets(self, independent: bool) -> Self {
        match (self, independent) {
            (Self::Default, true) => Self::Auroc,
            (Self::Default, false) => Self::Top1Error,
            (other, _) => other,
        }
    }

    /// Whether it is computed from all logits of an evaluation together.
    pub(in crate::train) fn needs_predictions(self) -> bool {
        matches!(
            self,
            Self::Accuracy | Self::Auroc | Self::AveragePrecision | Self::CalibrationError
        )
    }

    /// Whether a score is better than another one.
    pub fn is_better(self, score: f64, than: f64) -> bool {
        match self.is_high() {
            true => score > than,
            false => score < than,
        }
    }

    /// A change for the better by a share, with its sign.
    pub(in crate::train) fn improved(self, share: f64) -> f64 {
        match self.is_high() {
            true => share,
            false => -share,
        }
    }

    /// Whether a higher score is better.
    fn is_high(self) -> bool {
        matches!(self, Self::Accuracy | Self::Auroc | Self::AveragePrecision)
    }
}

/// The names of scores, as in checkpoints.
const NAMES: [(&str, BestBy); 8] = [
    ("default", BestBy::Default),
    ("top1_error", BestBy::Top1Error),
    ("top5_error", BestBy::Top5Error),
    ("loss", BestBy::Loss),
    ("accuracy", BestBy::Accuracy),
    ("auroc", BestBy::Auroc),
    ("average_precision", BestBy::AveragePrecision),
    ("calibration_error", BestBy::CalibrationError),
];

/// A name that no score has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a score; use one of {}", .0, NAMES.map(|(name, _)| name).join(", "))]
pub struct UnknownScore(String);

impl FromStr for BestBy {
    type Err = UnknownScore;

    /// By the score's name, such as `auroc`.
    fn from_str(name: &str) -> Result<Self, UnknownScore> {
        let mut named = NAMES.iter();
        let found = named.find(|(own, _)| *own == name);
        found
            .map(|&(_, score)| score)
            .ok_or_else(|| UnknownScore(name.into()))
    }
}

impl fmt::Display for BestBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "top-1 error, or mean AUROC where targets are independent",
            Self::Top1Error => "top-1 error",
            Self::Top5Error => "top-5 error",
            Self::Loss => "loss",
            Self::Accuracy => "mean accuracy of the classes",
            Self::Auroc => "mean AUROC",
            Self::AveragePrecision => "mean average precision",
            Self::CalibrationError => "calibration error",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_have_the_names_that_checkpoints_have() {
        for (name, score) in NAMES {
            assert_eq!(name.parse(), Ok(score));
            assert_eq!(
                serde_json::to_string(&score).unwrap(),
                format!("\"{name}\"")
            );
        }
        let error = "f1".parse::<BestBy>().unwrap_err().to_string();
        assert!(
            error.starts_with("`f1` is not a score; use one of default, top1_error"),
            "{error}"
        );
    }

    #[test]
    fn higher_is_better_where_it_is() {
        assert!(BestBy::Auroc.is_better(0.9, 0.8) && !BestBy::Auroc.is_better(0.8, 0.8));
        assert!(BestBy::Loss.is_better(0.1, 0.2) && !BestBy::Loss.is_better(0.2, 0.2));
    }
}

//! The reports of a run.

use serde::{Deserialize, Serialize};

use super::Schedule;
use super::score::{BestBy, MeanScores};

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// The epoch it belongs to, counted from 1.
    pub epoch: u32,
    /// Mean loss over the batch, smoothed as asked.
    pub loss: f64,
    /// Learning rate.
    pub learning_rate: f32,
    /// Images of the batch.
    pub images: usize,
    /// The number of them with the highest logit for their class.
    pub top1: usize,
    /// The number of them with their class among the five highest logits.
    pub top5: usize,
    /// With independent targets, the number of correct predictions at a threshold of 0.5.
    pub right: usize,
    /// The number of these predictions, one for each known target; 0 if targets are of another kind.
    pub known: usize,
    /// Seconds since the step before, waiting for the data included.
    pub seconds: f64,
}

impl StepReport {
    /// Images a second.
    pub fn images_per_second(&self) -> f64 {
        self.images as f64 / self.seconds.max(1e-9)
    }
}

/// The result of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Steps done before it.
    pub step: u64,
    /// Epochs done before it, with the fraction of the current one.
    pub epoch: f64,
    /// Images evaluated.
    pub images: usize,
    /// Classes of the network.
    pub classes: usize,
    /// Mean loss over the images, not smoothed; 0 if none of their targets is known.
    pub loss: f64,
    /// Images whose class has the highest logit.
    pub top1: usize,
    /// Images whose class is among the five highest logits.
    pub top5: usize,
    /// Whether the targets are independent, so that the images have no class of their own.
    pub independent: bool,
    /// If they are, the number of correct predictions at a threshold of 0.5.
    pub right: usize,
    /// The number of these predictions, one for each known target.
    pub known: usize,
    /// The class means of the scores of all predictions together, if targets are independent or
    /// [`Config::best_by`](super::Config::best_by) needs them.
    pub means: Option<MeanScores>,
    /// The score by which the best evaluation of the run is chosen.
    pub by: BestBy,
    /// The best evaluation of the run before this one, by the same score.
    pub best: Option<Best>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Evaluation {
    /// The score by which the best evaluation of the run is chosen; `None` if it is undefined, such
    /// as a mean AUROC if no class has both positive and negative labels, or a top-1 error if targets
    /// are independent.
    pub fn score(&self) -> Option<f64> {
        let means = self.means.unwrap_or_default();
        match self.by {
            BestBy::Default | BestBy::Top1Error => (!self.independent).then(|| self.top1_error()),
            BestBy::Top5Error => (!self.independent).then(|| self.top5_error()),
            BestBy::Loss => (!self.independent || self.known > 0).then_some(self.loss),
            BestBy::Accuracy => means.accuracy,
            BestBy::Auroc => means.auroc,
            BestBy::AveragePrecision => means.average_precision,
            BestBy::CalibrationError => means.calibration_error,
        }
    }

    /// The share of the known independent targets that are predicted wrongly at a threshold of 0.5;
    /// `None` if targets are of another kind.
    pub fn decision_error(&self) -> Option<f64> {
        let known = self.known as f64;
        (self.known > 0).then(|| 1.0 - self.right as f64 / known)
    }

    /// The share of images whose class does not have the highest logit.
    pub fn top1_error(&self) -> f64 {
        self.error(self.top1)
    }

    /// The share of images whose class is not among the five highest logits.
    pub fn top5_error(&self) -> f64 {
        self.error(self.top5)
    }

    fn error(&self, right: usize) -> f64 {
        1.0 - right as f64 / self.images.max(1) as f64
    }
}

/// A run that was resumed with another schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rescheduled {
    /// Steps done before.
    pub step: u64,
    /// Epochs of the run from then on.
    pub epochs: u32,
    /// The schedule from then on.
    pub schedule: Schedule,
    /// Epochs of the run until then.
    pub epochs_before: u32,
    /// The schedule until then.
    pub schedule_before: Schedule,
}

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps done before it.
    pub step: u64,
    /// The score by which it is the best; older checkpoints have the top-1 error alone.
    #[serde(default = "top1_error")]
    pub by: BestBy,
    /// Its score; an error is a share.
    #[serde(alias = "top1_error")]
    pub score: f64,
}

const fn top1_error() -> BestBy {
    BestBy::Top1Error
}

/// The outline of a run, reported when it starts or is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Steps done before.
    pub step: u64,
    /// Steps of an epoch.
    pub epoch_steps: u64,
    /// The step with which this run ends.
    pub last_step: u64,
    /// Whether the previous steps end an epoch that has not been evaluated yet. It is then
    /// evaluated first.
    pub evaluation_due: bool,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All epochs are done.
    Finished,
    /// The requested number of steps is done.
    StepsDone,
    /// The evaluations stopped improving ([`Fit::patience`](super::Fit::patience)).
    Stalled,
    /// It was asked to stop.
    Interrupted,
}

/// The summary of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Why it ended.
    pub ending: Ending,
    /// Steps done in all.
    pub step: u64,
    /// The latest step of this run; `None` if no step was left.
    pub last: Option<StepReport>,
    /// The latest evaluation of this run, if there was one.
    pub evaluation: Option<Evaluation>,
    /// The best evaluation of the whole run.
    pub best: Option<Best>,
}

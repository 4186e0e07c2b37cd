//! The learning rate, and one cycle's momentum, as functions of progress.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A learning-rate schedule: a learning rate, how it is reached, and how it falls.
///
/// ```
/// use densenet_runtime::train::{Progress, Schedule};
///
/// // The paper's learning rate for CIFAR: 0.1, a tenth of it from half of the run on.
/// let schedule = Schedule::halves(0.1);
/// let at = |epoch| Progress { epoch, epochs: 300, step: 0, steps: 782, plateaus: 0 };
/// assert_eq!(schedule.learning_rate(at(149)), 0.1);
/// assert_eq!(schedule.learning_rate(at(150)), 0.1 / 10.0);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The learning rate before it falls.
    #[serde(rename = "rate")]
    pub learning_rate: f32,
    /// Epochs over which the learning rate rises linearly from 0, step by step; 0 for no warm-up.
    /// One cycle rises in its own way.
    pub warmup: f64,
    /// How the learning rate falls.
    pub decay: Decay,
}

/// How a learning rate falls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decay {
    /// Not at all.
    Constant,
    /// Divided by `by` at each milestone.
    Divide {
        /// The milestones, in any order.
        at: Vec<Milestone>,
        /// The divisor.
        by: f32,
    },
    /// Half a cosine, from the learning rate down to `floor` at the end of the run.
    Cosine {
        /// The last learning rate.
        floor: f32,
    },
    /// One cycle (Smith and Topin, 2018, "Super-Convergence"), with half cosines as PyTorch's
    /// `OneCycleLR`: up to the learning rate over the warm-up, then down to the end of the run.
    OneCycle {
        /// The first learning rate is the highest one divided by this; PyTorch's default is 25.
        first: f32,
        /// The last learning rate is the first one divided by this; PyTorch's default is 10,000.
        last: f32,
        /// The lowest momentum, at the highest learning rate, and the highest one, at both ends:
        /// `cycle_momentum` of PyTorch, whose defaults are [`CYCLED_MOMENTUM`]. They are SGD's
        /// momentum, or AdamW's first beta, in place of the run's. `None` if it does not change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        momentum: Option<[f64; 2]>,
    },
    /// Divided when the evaluations at the ends of epochs stop improving, as PyTorch's
    /// `ReduceLROnPlateau`. Those before the end of the warm-up do not count.
    Plateau {
        /// The divisor.
        by: f32,
        /// The number of evaluations in a row that may be no better before the learning rate is divided.
        patience: u32,
        /// An evaluation is better if it improves on the best by more than this share of it.
        threshold: f32,
        /// The number of evaluations after a division that are not counted as bad.
        cooldown: u32,
        /// The lowest learning rate.
        floor: f32,
    },
}

/// The lowest and the highest momentum of PyTorch's `OneCycleLR`.
pub const CYCLED_MOMENTUM: [f64; 2] = [0.85, 0.95];

/// A point of a run at which its learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Milestone {
    /// When this many epochs are done.
    Epoch(f64),
    /// When this share of the run is done, in [0, 1].
    Share(f64),
}

/// How far a run is, before the step in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Epochs done.
    pub epoch: u32,
    /// Epochs of the whole run.
    pub epochs: u32,
    /// Steps done in the current epoch.
    pub step: u64,
    /// Steps of an epoch.
    pub steps: u64,
    /// How many plateaus have divided the learning rate.
    pub plateaus: u32,
}

impl Progress {
    /// Epochs done, with the fraction of the current one.
    pub fn epochs_done(self) -> f64 {
        f64::from(self.epoch) + self.step as f64 / self.steps.max(1) as f64
    }

    /// The share of the run that is done; 1 at its end.
    pub fn share_done(self) -> f64 {
        self.epochs_done() / f64::from(self.epochs.max(1))
    }
}

impl Schedule {
    /// The same learning rate throughout.
    pub const fn constant(learning_rate: f32) -> Self {
        Self {
            learning_rate,
            warmup: 0.0,
            decay: Decay::Constant,
        }
    }

    /// Divided by 10 when half and when three quarters of the run are done: the paper's for
    /// CIFAR and SVHN (section 4.2).
    pub fn halves(learning_rate: f32) -> Self {
        Self {
            learning_rate,
            warmup: 0.0,
            decay: Decay::Divide {
                at: vec![Milestone::Share(0.5), Milestone::Share(0.75)],
                by: 10.0,
            },
        }
    }

    /// Divided by 10 after 30 and after 60 epochs: the paper's for ImageNet (section 4.2).
    pub fn thirties(learning_rate: f32) -> Self {
        Self {
            learning_rate,
            warmup: 0.0,
            decay: Decay::Divide {
                at: vec![Milestone::Epoch(30.0), Milestone::Epoch(60.0)],
                by: 10.0,
            },
        }
    }

    /// Half a cosine from the learning rate down to 0, after a warm-up of this many epochs.
    pub const fn cosine(learning_rate: f32, warmup: f64) -> Self {
        Self {
            learning_rate,
            warmup,
            decay: Decay::Cosine { floor: 0.0 },
        }
    }

    /// One cycle: over `warmup` epochs from a 25th of the learning rate up to it, then down to a
    /// ten-thousandth of the first value. The momentum does not change.
    pub const fn one_cycle(learning_rate: f32, warmup: f64) -> Self {
        let (first, last) = (25.0, 1e4);
        Self {
            learning_rate,
            warmup,
            decay: Decay::OneCycle {
                first,
                last,
                momentum: None,
            },
        }
    }

    /// Divided by 10 when more than `patience` evaluations in a row are no better than the best
    /// one.
    pub const fn plateau(learning_rate: f32, patience: u32) -> Self {
        Self {
            learning_rate,
            warmup: 0.0,
            decay: Decay::Plateau {
                by: 10.0,
                patience,
                threshold: 1e-4,
                cooldown: 0,
                floor: 0.0,
            },
        }
    }

    /// The learning rate of the step that follows.
    pub fn learning_rate(&self, progress: Progress) -> f32 {
        // A step of the warm-up uses the learning rate at its end, so that the first step is not wasted.
        let end_of_step = Progress {
            step: progress.step + 1,
            ..progress
        };
        let rises_by_itself = matches!(self.decay, Decay::OneCycle { .. });
        if end_of_step.epochs_done() < self.warmup && !rises_by_itself {
            return (f64::from(self.learning_rate) * end_of_step.epochs_done() / self.warmup)
                as f32;
        }
        match &self.decay {
            Decay::Constant => self.learning_rate,
            Decay::Divide { at, by } => {
                let passed = at
                    .iter()
                    .filter(|milestone| milestone.is_past(progress))
                    .count();
                self.learning_rate / by.powi(passed as i32)
            }
            Decay::Cosine { floor } => {
                let all = f64::from(progress.epochs) - self.warmup;
                let done = (progress.epochs_done() - self.warmup) / all.max(f64::MIN_POSITIVE);
                let height = 0.5 * (1.0 + (std::f64::consts::PI * done.clamp(0.0, 1.0)).cos());
                floor + (self.learning_rate - floor) * height as f32
            }
            &Decay::OneCycle { first, last, .. } => {
                let highest = f64::from(self.learning_rate);
                let lowest = highest / f64::from(first);
                self.cycle(progress, [lowest, highest, lowest / f64::from(last)]) as f32
            }
            &Decay::Plateau { by, floor, .. } => {
                let mut rate = f64::from(self.learning_rate);
                for _ in 0..progress.plateaus {
                    let lower = (rate / f64::from(by)).max(f64::from(floor));
                    if rate - lower <= SMALLEST_DIVISION {
                        break;
                    }
                    rate = lower;
                }
                rate as f32
            }
        }
    }

    /// The momentum of the step that follows; `None` if it is the run's.
    pub fn momentum(&self, progress: Progress) -> Option<f64> {
        let Decay::OneCycle { momentum, .. } = self.decay else {
            return None;
        };
        momentum.map(|[low, high]| self.cycle(progress, [high, low, high]))
    }

    /// A number that goes from the first to the second and to the third value in one cycle.
    fn cycle(&self, progress: Progress, [first, peak, last]: [f64; 3]) -> f64 {
        let half_cosine = |from: f64, to: f64, share: f64| {
            to + (from - to) / 2.0 * (1.0 + (std::f64::consts::PI * share.clamp(0.0, 1.0)).cos())
        };
        let steps = progress.steps as f64;
        let step = f64::from(progress.epoch) * steps + progress.step as f64;
        // The last steps of the rise and of the run have the second and the third value.
        let rise = self.warmup * steps - 1.0;
        let end = f64::from(progress.epochs) * steps - 1.0;
        if step < rise {
            return half_cosine(first, peak, step / rise);
        }
        let fall = (end - rise).max(f64::MIN_POSITIVE);
        half_cosine(peak, last, (step - rise) / fall)
    }

    /// Records the evaluation at the end of an epoch; `is_better` says whether a value is better
    /// than another one by more than a share of it.
    pub(super) fn evaluated(
        &self,
        progress: Progress,
        value: f64,
        is_better: impl Fn(f64, f64, f64) -> bool,
        state: &mut PlateauState,
    ) {
        let Decay::Plateau {
            patience,
            threshold,
            cooldown,
            ..
        } = self.decay
        else {
            return;
        };
        if progress.epochs_done() < self.warmup {
            return;
        }
        if state
            .best
            .is_none_or(|best| is_better(value, best, f64::from(threshold)))
        {
            state.best = Some(value);
            state.bad = 0;
        } else {
            state.bad = state.bad.saturating_add(1);
        }
        if state.cooldown > 0 {
            state.cooldown -= 1;
            state.bad = 0;
        }
        if state.bad > patience {
            state.plateaus = state.plateaus.saturating_add(1);
            state.cooldown = cooldown;
            state.bad = 0;
        }
    }

    /// Whether a longer run has other learning rates from its start on.
    pub fn depends_on_length(&self) -> bool {
        match &self.decay {
            Decay::Constant | Decay::Plateau { .. } => false,
            Decay::Divide { at, .. } => at.iter().any(|each| matches!(each, Milestone::Share(_))),
            Decay::Cosine { .. } | Decay::OneCycle { .. } => true,
        }
    }

    /// Why this is not a valid schedule, if it is not.
    pub(super) fn problem(&self) -> Option<String> {
        let rate_is =
            |what, rate: f32| format!("{what} must be 0 or more and finite, found {rate}");
        let bad = |rate: f32| !rate.is_finite() || rate < 0.0;
        if bad(self.learning_rate) {
            return Some(rate_is("the learning rate", self.learning_rate));
        }
        if !self.warmup.is_finite() || self.warmup < 0.0 {
            return Some(format!(
                "the warm-up must be 0 epochs or more, found {}",
                self.warmup
            ));
        }
        match self.decay {
            Decay::Cosine { floor } if bad(floor) => Some(rate_is("the last learning rate", floor)),
            Decay::Divide { by, .. } if !by.is_finite() || by <= 0.0 => Some(format!(
                "the learning rate must be divided by more than 0, found {by}"
            )),
            Decay::OneCycle {
                momentum: Some([low, high]),
                ..
            } if !(0.0 <= low && low <= high && high < 1.0) => Some(format!(
                "one cycle's momentum must go from its lowest to its highest value in [0, 1), found {low} and {high}"
            )),
            Decay::OneCycle { first, last, .. } => [first, last]
                .into_iter()
                .find(|by| !by.is_finite() || *by < 1.0)
                .map(|by| format!("one cycle must divide by 1 or more, found {by}")),
            Decay::Plateau { by, .. } if !by.is_finite() || by <= 1.0 => Some(format!(
                "a plateau must divide the learning rate by more than 1, found {by}"
            )),
            Decay::Plateau { floor, .. } if bad(floor) => {
                Some(rate_is("the lowest learning rate", floor))
            }
            Decay::Plateau { threshold, .. } if !(0.0..1.0).contains(&threshold) => Some(format!(
                "the threshold of a plateau must be in [0, 1), found {threshold}"
            )),
            _ => None,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "learning rate {}", self.learning_rate)?;
        if self.warmup > 0.0 {
            write!(f, ", warm-up of {} epochs", self.warmup)?;
        }
        match self.decay {
            Decay::Constant => Ok(()),
            ref decay => write!(f, ", decay: {decay}"),
        }
    }
}

impl fmt::Display for Decay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.write_str("none"),
            Self::Divide { at, by } => {
                let at: Vec<_> = at.iter().map(ToString::to_string).collect();
                write!(f, "by {by} after {}", at.join(" and "))
            }
            Self::Cosine { floor } => write!(f, "half a cosine down to {floor}"),
            Self::OneCycle {
                first,
                last,
                momentum,
            } => {
                write!(
                    f,
                    "one cycle, divided by {first} at first and by {last} more at last"
                )?;
                match momentum {
                    None => Ok(()),
                    Some([low, high]) => write!(f, ", momentum from {high} to {low} and back"),
                }
            }
            Self::Plateau {
                by,
                patience,
                threshold,
                cooldown,
                floor,
            } => write!(
                f,
                "by {by} on plateaus down to {floor} (patience {patience}, threshold {threshold}, cooldown {cooldown})"
            ),
        }
    }
}

impl fmt::Display for Milestone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch(epochs) => write!(f, "{epochs} epochs"),
            Self::Share(share) => write!(f, "{}% of the run", 100.0 * share),
        }
    }
}

/// A division that lowers the learning rate by no more than this is left out, as in PyTorch.
const SMALLEST_DIVISION: f64 = 1e-8;

/// The state of a schedule with plateaus after the evaluations so far; part of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PlateauState {
    /// The best value so far.
    best: Option<f64>,
    /// Consecutive evaluations that were no better.
    bad: u32,
    /// Evaluations until bad ones count again.
    cooldown: u32,
    /// How many plateaus have divided the learning rate.
    pub(super) plateaus: u32,
}

impl Milestone {
    fn is_past(self, progress: Progress) -> bool {
        match self {
            Self::Epoch(epochs) => progress.epochs_done() >= epochs,
            Self::Share(share) => progress.share_done() >= share,
        }
    }
}

#[cfg(test)]
mod tests;

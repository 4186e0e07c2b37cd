//! The learning rate as a function of progress.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A learning-rate schedule: a learning rate, how it is reached, and how it falls.
///
/// ```
/// use densenet_runtime::train::{Progress, Schedule};
///
/// // The paper's learning rate for CIFAR: 0.1, a tenth of it from half of the run on.
/// let schedule = Schedule::halves(0.1);
/// let at = |epoch| Progress { epoch, epochs: 300, step: 0, steps: 782 };
/// assert_eq!(schedule.learning_rate(at(149)), 0.1);
/// assert_eq!(schedule.learning_rate(at(150)), 0.1 / 10.0);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The learning rate before it falls.
    #[serde(rename = "rate")]
    pub learning_rate: f32,
    /// Epochs over which the learning rate rises from 0 in a straight line, step by step; 0 for
    /// none.
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
}

/// A point of a run at which its learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Milestone {
    /// When so many epochs are done.
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

    /// Half a cosine from the learning rate down to 0, after a warm-up of so many epochs.
    pub const fn cosine(learning_rate: f32, warmup: f64) -> Self {
        Self {
            learning_rate,
            warmup,
            decay: Decay::Cosine { floor: 0.0 },
        }
    }

    /// The learning rate of the step that follows.
    pub fn learning_rate(&self, progress: Progress) -> f32 {
        // A step of the warm-up takes the learning rate of its end, so that the first is not
        // wasted.
        let end_of_step = Progress {
            step: progress.step + 1,
            ..progress
        };
        if end_of_step.epochs_done() < self.warmup {
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
        }
    }

    /// Whether a longer run has other learning rates from its start on.
    pub fn depends_on_length(&self) -> bool {
        match &self.decay {
            Decay::Constant => false,
            Decay::Divide { at, .. } => at.iter().any(|each| matches!(each, Milestone::Share(_))),
            Decay::Cosine { .. } => true,
        }
    }

    /// What keeps this from being a schedule, if anything does.
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

impl Milestone {
    fn is_past(self, progress: Progress) -> bool {
        match self {
            Self::Epoch(epochs) => progress.epochs_done() >= epochs,
            Self::Share(share) => progress.share_done() >= share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u32, step: u64, epochs: u32) -> Progress {
        Progress {
            epoch,
            epochs,
            step,
            steps: 7,
        }
    }

    #[test]
    fn cifar_falls_to_a_tenth_at_half_and_at_three_quarters() {
        let schedule = Schedule::halves(0.1);
        assert_eq!(schedule.learning_rate(at(0, 0, 300)), 0.1);
        assert_eq!(schedule.learning_rate(at(149, 6, 300)), 0.1);
        assert_eq!(schedule.learning_rate(at(150, 0, 300)), 0.1 / 10.0);
        assert_eq!(schedule.learning_rate(at(224, 6, 300)), 0.1 / 10.0);
        assert_eq!(schedule.learning_rate(at(225, 0, 300)), 0.1 / 100.0);
    }

    #[test]
    fn svhn_falls_at_epochs_20_and_30_of_40() {
        let schedule = Schedule::halves(0.1);
        assert_eq!(schedule.learning_rate(at(19, 6, 40)), 0.1);
        assert_eq!(schedule.learning_rate(at(20, 0, 40)), 0.1 / 10.0);
        assert_eq!(schedule.learning_rate(at(30, 0, 40)), 0.1 / 100.0);
    }

    #[test]
    fn imagenet_falls_at_epochs_30_and_60_however_long_the_run() {
        let schedule = Schedule::thirties(0.1);
        for epochs in [90, 100] {
            assert_eq!(schedule.learning_rate(at(29, 6, epochs)), 0.1);
            assert_eq!(schedule.learning_rate(at(30, 0, epochs)), 0.1 / 10.0);
            assert_eq!(schedule.learning_rate(at(59, 6, epochs)), 0.1 / 10.0);
            assert_eq!(schedule.learning_rate(at(60, 0, epochs)), 0.1 / 100.0);
        }
        assert!(!schedule.depends_on_length());
        assert!(Schedule::halves(0.1).depends_on_length());
    }

    #[test]
    fn an_odd_run_falls_in_the_middle_of_an_epoch() {
        let schedule = Schedule::halves(1.0);
        // Half of 3 epochs of 7 steps is 10.5 steps.
        assert_eq!(schedule.learning_rate(at(1, 3, 3)), 1.0);
        assert_eq!(schedule.learning_rate(at(1, 4, 3)), 0.1);
    }

    #[test]
    fn a_warm_up_rises_in_a_straight_line_to_the_full_rate() {
        let schedule = Schedule {
            warmup: 2.0,
            ..Schedule::constant(14.0)
        };
        let rates: Vec<f32> = (0..16)
            .map(|step| schedule.learning_rate(at(step / 7, u64::from(step % 7), 5)))
            .collect();
        for (step, &rate) in rates.iter().enumerate() {
            let expected = (step as f32 + 1.0).min(14.0);
            assert!((rate - expected).abs() < 1e-5, "step {step}: {rate}");
        }
    }

    #[test]
    fn a_cosine_is_half_way_down_in_the_middle_and_ends_at_its_floor() {
        let schedule = Schedule::cosine(0.2, 0.0);
        assert_eq!(schedule.learning_rate(at(0, 0, 10)), 0.2);
        assert!((schedule.learning_rate(at(5, 0, 10)) - 0.1).abs() < 1e-7);
        assert!(schedule.learning_rate(at(10, 0, 10)).abs() < 1e-7);
    }

    #[test]
    fn a_schedule_survives_being_written_down() {
        for schedule in [
            Schedule::halves(0.1),
            Schedule::thirties(0.05),
            Schedule::cosine(0.3, 1.5),
        ] {
            let text = serde_json::to_string(&schedule).unwrap();
            // Older versions read and write this name.
            assert!(text.starts_with(r#"{"rate":"#), "{text}");
            let back: Schedule = serde_json::from_str(&text).unwrap();
            assert_eq!(back, schedule);
        }
    }
}

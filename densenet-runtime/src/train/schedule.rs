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
/// let at = |epoch| Progress { epoch, epochs: 300, step: 0, steps: 782, plateaus: 0 };
/// assert_eq!(schedule.learning_rate(at(149)), 0.1);
/// assert_eq!(schedule.learning_rate(at(150)), 0.1 / 10.0);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The learning rate before it falls.
    #[serde(rename = "rate")]
    pub learning_rate: f32,
    /// Epochs over which the learning rate rises from 0 in a straight line, step by step; 0 for
    /// none. One cycle rises in its own way.
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
    /// `OneCycleLR`: up to the learning rate over the warm-up, then down to the end of the run. The
    /// momentum stays as it is.
    OneCycle {
        /// The first learning rate is the highest one divided by this; PyTorch's default is 25.
        first: f32,
        /// The last learning rate is the first one divided by this; PyTorch's default is 10,000.
        last: f32,
    },
    /// Divided when the evaluations at the ends of epochs stop improving, as PyTorch's
    /// `ReduceLROnPlateau`. Those before the end of the warm-up do not count.
    Plateau {
        /// The divisor.
        by: f32,
        /// How many evaluations in a row may be no better before the learning rate is divided.
        patience: u32,
        /// An evaluation is better if it improves on the best by more than this share of it.
        threshold: f32,
        /// How many evaluations after a division are not counted as bad.
        cooldown: u32,
        /// The lowest learning rate.
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

    /// Half a cosine from the learning rate down to 0, after a warm-up of so many epochs.
    pub const fn cosine(learning_rate: f32, warmup: f64) -> Self {
        Self {
            learning_rate,
            warmup,
            decay: Decay::Cosine { floor: 0.0 },
        }
    }

    /// One cycle: over `warmup` epochs up to the learning rate from a 25th of it, then down to a
    /// ten-thousandth of where it began.
    pub const fn one_cycle(learning_rate: f32, warmup: f64) -> Self {
        let (first, last) = (25.0, 1e4);
        Self {
            learning_rate,
            warmup,
            decay: Decay::OneCycle { first, last },
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
        // A step of the warm-up takes the learning rate of its end, so that the first is not
        // wasted.
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
            &Decay::OneCycle { first, last } => {
                self.cycle(progress, f64::from(first), f64::from(last)) as f32
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

    /// The learning rate in one cycle.
    fn cycle(&self, progress: Progress, first: f64, last: f64) -> f64 {
        let half_cosine = |from: f64, to: f64, share: f64| {
            to + (from - to) / 2.0 * (1.0 + (std::f64::consts::PI * share.clamp(0.0, 1.0)).cos())
        };
        let highest = f64::from(self.learning_rate);
        let lowest = highest / first;
        let steps = progress.steps as f64;
        let step = f64::from(progress.epoch) * steps + progress.step as f64;
        // The last steps of the rise and of the run have the highest and the lowest rate.
        let rise = self.warmup * steps - 1.0;
        let end = f64::from(progress.epochs) * steps - 1.0;
        if step < rise {
            return half_cosine(lowest, highest, step / rise);
        }
        let fall = (end - rise).max(f64::MIN_POSITIVE);
        half_cosine(highest, lowest / last, (step - rise) / fall)
    }

    /// Takes note of the evaluation at the end of an epoch; `is_better` says whether a value is
    /// better than another one by more than a share of it.
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
            Decay::OneCycle { first, last } => [first, last]
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
            Self::OneCycle { first, last } => write!(
                f,
                "one cycle, divided by {first} at first and by {last} more at last"
            ),
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

/// What a plateau's schedule remembers of the evaluations so far; part of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PlateauState {
    /// The best value so far.
    best: Option<f64>,
    /// Evaluations in a row that were no better.
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
mod tests {
    use super::*;

    fn at(epoch: u32, step: u64, epochs: u32) -> Progress {
        Progress {
            epoch,
            epochs,
            step,
            steps: 7,
            plateaus: 0,
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
            Schedule::one_cycle(0.3, 1.5),
            Schedule::plateau(0.3, 2),
        ] {
            let text = serde_json::to_string(&schedule).unwrap();
            // Older versions read and write this name.
            assert!(text.starts_with(r#"{"rate":"#), "{text}");
            let back: Schedule = serde_json::from_str(&text).unwrap();
            assert_eq!(back, schedule);
        }
    }

    /// What PyTorch's schedulers give, by `scripts/golden_schedules.py`.
    #[derive(Deserialize)]
    struct Golden {
        name: String,
        schedule: Schedule,
        epochs: u32,
        steps: u64,
        /// The results of evaluations, lower is better; for plateaus alone.
        #[serde(default)]
        values: Vec<f64>,
        rates: Vec<f64>,
    }

    #[test]
    fn learning_rates_equal_those_of_pytorch_step_by_step() {
        let golden = include_str!("tests/golden/schedules.json");
        let golden: Vec<Golden> = serde_json::from_str(golden).unwrap();
        assert_eq!(golden.len(), 12);
        for case in golden {
            assert_eq!(case.schedule.problem(), None, "{}", case.name);
            assert_eq!(case.rates.len() as u64, u64::from(case.epochs) * case.steps);
            let mut state = PlateauState::default();
            let mut progress = at(0, 0, case.epochs);
            progress.steps = case.steps;
            for (index, rate) in case.rates.iter().enumerate() {
                progress.plateaus = state.plateaus;
                let found = f64::from(case.schedule.learning_rate(progress));
                let name = &case.name;
                assert!(
                    (found - rate).abs() <= 1e-6 * rate.abs() + 1e-9,
                    "{name}, step {index}: {found}, PyTorch has {rate}"
                );
                progress.step += 1;
                if progress.step < case.steps {
                    continue;
                }
                if let Some(&value) = case.values.get(progress.epoch as usize) {
                    let is_lower = |value, best, share| value < best * (1.0 - share);
                    let schedule = &case.schedule;
                    schedule.evaluated(progress, value, is_lower, &mut state);
                }
                (progress.epoch, progress.step) = (progress.epoch + 1, 0);
            }
        }
    }
}

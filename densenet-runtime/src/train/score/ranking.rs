//! Scores that depend on the order of predictions: AUROC, average precision, thresholds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::curve::Curve;

/// How the threshold of a class is chosen. A prediction is positive if its probability reaches the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdRule {
    /// The highest sum of sensitivity and specificity (Youden's J); the highest such threshold.
    Youden,
    /// The highest threshold with at least this sensitivity, the share of positive images that are
    /// found, in (0, 1].
    Sensitivity(f64),
}

/// An unknown rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a rule for thresholds; write youden, or sensitivity=0.9 for any share above 0 \
        and at most 1"
)]
pub struct UnknownRule(String);

impl ThresholdRule {
    /// Whether its share is valid.
    pub(in crate::train) fn is_valid(self) -> bool {
        match self {
            Self::Youden => true,
            Self::Sensitivity(share) => share > 0.0 && share <= 1.0,
        }
    }
}

impl FromStr for ThresholdRule {
    type Err = UnknownRule;

    /// `youden`, or `sensitivity=0.9`.
    fn from_str(text: &str) -> Result<Self, UnknownRule> {
        let rule = match text.split_once('=') {
            None if text == "youden" => Some(Self::Youden),
            Some(("sensitivity", share)) => share.parse().ok().map(Self::Sensitivity),
            _ => None,
        };
        rule.filter(|rule| rule.is_valid())
            .ok_or_else(|| UnknownRule(text.to_string()))
    }
}

impl fmt::Display for ThresholdRule {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Youden => f.write_str("youden"),
            Self::Sensitivity(share) => write!(f, "sensitivity={share}"),
        }
    }
}

/// The images of a class at each distinct score, from the highest to the lowest. Some are positive
/// and some negative.
pub(super) struct Ranking {
    points: Vec<Point>,
    positives: u64,
    negatives: u64,
}

/// The positives that a threshold at a score finds.
#[derive(Clone, Copy, Default)]
struct Point {
    score: f64,
    /// Images that the class applies to.
    right: u64,
    /// Others.
    wrong: u64,
}

impl Ranking {
    /// From scores and whether each image is positive; `None` unless there are both kinds.
    pub(super) fn new(mut scores: Vec<(f64, bool)>) -> Option<Self> {
        scores.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let mut points: Vec<Point> = Vec::new();
        let mut found = Point::default();
        for (score, applies) in scores {
            let is_new = points.is_empty() || score != found.score;
            found.score = score;
            match applies {
                true => found.right += 1,
                false => found.wrong += 1,
            }
            match points.last_mut() {
                Some(last) if !is_new => *last = found,
                _ => points.push(found),
            }
        }
        (found.right > 0 && found.wrong > 0).then_some(Self {
            points,
            positives: found.right,
            negatives: found.wrong,
        })
    }

    /// The area under the receiver operating characteristic: the share of pairs of a positive and a
    /// negative image in which the positive one has the higher score. Equal scores count half.
    pub(super) fn auroc(&self) -> f64 {
        let mut before = Point::default();
        let mut doubled: u128 = 0;
        for &point in &self.points {
            doubled +=
                u128::from(point.wrong - before.wrong) * u128::from(before.right + point.right);
            before = point;
        }
        doubled as f64 / (2.0 * self.positives as f64 * self.negatives as f64)
    }

    /// The mean of the precision at the score of each positive image.
    pub(super) fn average_precision(&self) -> f64 {
        let mut before = 0;
        let mut sum = 0.0;
        for point in &self.points {
            let precision = point.right as f64 / (point.right + point.wrong) as f64;
            sum += (point.right - before) as f64 * precision;
            before = point.right;
        }
        sum / self.positives as f64
    }

    /// The curves.
    pub(super) fn curve(&self) -> Curve {
        let points = self.points.iter();
        Curve::new(points.map(|point| [point.right, point.wrong]).collect())
    }

    /// The score from which a prediction is positive.
    pub(super) fn threshold(&self, rule: ThresholdRule) -> f64 {
        let enough = |point: &Point| match rule {
            ThresholdRule::Youden => true,
            ThresholdRule::Sensitivity(share) => {
                point.right as f64 / self.positives as f64 >= share
            }
        };
        let candidates = self.points.iter().filter(|point| enough(point));
        let mut best: Option<(i128, f64)> = None;
        for point in candidates {
            // In whole numbers, so that equal ones are equal.
            let right = i128::from(point.right) * i128::from(self.negatives);
            let j = right - i128::from(point.wrong) * i128::from(self.positives);
            match rule {
                ThresholdRule::Youden if best.is_some_and(|(most, _)| j <= most) => {}
                ThresholdRule::Sensitivity(_) if best.is_some() => break,
                _ => best = Some((j, point.score)),
            }
        }
        // No share is above 1, so the lowest score reaches any of them.
        let lowest = self.points.last().map_or(0.0, |point| point.score);
        best.map_or(lowest, |(_, score)| score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        for rule in [
            ThresholdRule::Youden,
            ThresholdRule::Sensitivity(0.9),
            ThresholdRule::Sensitivity(1.0),
        ] {
            assert_eq!(rule.to_string().parse(), Ok(rule));
            let json = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<ThresholdRule>(&json).unwrap(), rule);
        }
        for text in [
            "",
            "f1",
            "youden=1",
            "sensitivity",
            "sensitivity=0",
            "sensitivity=1.5",
            "sensitivity=nan",
        ] {
            let error = text.parse::<ThresholdRule>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` is not a rule")),
                "{error}"
            );
        }
    }
}

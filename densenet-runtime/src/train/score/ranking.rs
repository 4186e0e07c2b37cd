//! What the order of scores says: AUROC, average precision, thresholds.

/// How the threshold of a class is chosen. A decision is yes from the threshold on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ThresholdRule {
    /// The highest sum of sensitivity and specificity (Youden's J); the highest such threshold.
    Youden,
    /// The highest threshold at which at least this share of the images that the class applies to
    /// is found, in (0, 1].
    Sensitivity(f64),
}

/// The images of a class at each distinct score, from the highest to the lowest. There are some
/// that the class applies to, and some others.
pub(super) struct Ranking {
    points: Vec<Point>,
    positives: u64,
    negatives: u64,
}

/// What is found where a decision is yes from a score on.
#[derive(Clone, Copy, Default)]
struct Point {
    score: f64,
    /// Images that the class applies to.
    right: u64,
    /// Others.
    wrong: u64,
}

impl Ranking {
    /// Of scores, with whether the class applies; `None` unless there are both kinds.
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

    /// The area under the receiver operating characteristic: the share of pairs of an image that
    /// the class applies to and another one in which the first has the higher score. Equal scores
    /// count half.
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

    /// The mean of the precision over the images that the class applies to, at the score of each.
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

    /// The score from which a decision is yes.
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
        // No share is above 1, so the lowest score is enough for any that can be asked for.
        let lowest = self.points.last().map_or(0.0, |point| point.score);
        best.map_or(lowest, |(_, score)| score)
    }
}

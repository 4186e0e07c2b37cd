//! The result of a batch, and the rule by which an image counts as correct.

/// The result of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Mean cross-entropy over the batch, smoothed as requested; for independent targets, the mean
    /// binary cross-entropy over the known ones.
    pub loss: f64,
    /// The divisor of the loss ([`Targets::weight`](crate::Targets::weight)): the number of images,
    /// unless classes have weights or targets are independent.
    pub weight: f64,
    /// Images whose class alone has the highest logit. With probabilities, the class is the most
    /// probable one. This and `top5` are 0 if targets are independent.
    pub top1: usize,
    /// Images whose class is among the five highest logits; equal logits count as higher.
    pub top5: usize,
    /// Independent targets that are known; 0 if targets are of another kind.
    pub known: usize,
    /// Those of them that the network predicts correctly at a threshold of 0.5.
    pub right: usize,
}

impl Outcome {
    /// Counts an image with these logits: whether its class is the first, and among the first five.
    /// All executors share this rule. A network whose logits are all equal is never right: a logit
    /// equal to the class's own counts as higher. If any logit is NaN, the image is wrong.
    pub fn count<T: PartialOrd + Copy>(&mut self, logits: &[T], label: usize) {
        let own = logits[label];
        let is_nan = |z: T| z.partial_cmp(&z).is_none();
        if logits.iter().any(|&z| is_nan(z)) {
            return;
        }
        let below = logits.iter().filter(|&&z| z < own).count();
        let not_below = logits.len() - below;
        self.top1 += usize::from(not_below == 1);
        self.top5 += usize::from(not_below <= 5);
    }

    /// Counts an independent target and its prediction. The prediction is positive from a logit of
    /// 0 on, and the target from 0.5 on. An unknown target is not counted. A logit that is NaN is
    /// never correct.
    pub fn decide<T: Into<f64>>(&mut self, logit: T, target: f32) {
        if target.is_nan() {
            return;
        }
        let logit = logit.into();
        self.known += 1;
        self.right += usize::from(!logit.is_nan() && (logit >= 0.0) == (target >= 0.5));
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    fn counted(logits: &[f32], label: usize) -> (usize, usize) {
        let mut outcome = Outcome::default();
        outcome.count(logits, label);
        let doubles: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
        let mut same = Outcome::default();
        same.count(&doubles, label);
        assert_eq!(outcome, same);
        (outcome.top1, outcome.top5)
    }

    #[test]
    fn a_class_is_right_where_it_stands_above_all_others() {
        let logits = [0.0, 3.0, 1.0, 5.0, 2.0, 4.0, -1.0];
        let right = (0..7)
            .map(|label| counted(&logits, label))
            .collect::<Vec<_>>();
        let expected = [(0, 0), (0, 1), (0, 1), (1, 1), (0, 1), (0, 1), (0, 0)];
        assert_eq!(right, expected);
    }

    #[test]
    fn ties_count_as_wrong() {
        assert_eq!(counted(&[0.0; 10], 3), (0, 0));
        assert_eq!(counted(&[1.0, 1.0, 0.0], 0), (0, 1));
        assert_eq!(counted(&[0.0, -0.0], 0), (0, 1));
    }

    #[test]
    fn decisions_are_taken_at_a_probability_of_a_half() {
        let mut outcome = Outcome::default();
        for (logit, target) in [(0.0, 1.0), (-0.1, 0.0), (2.0, 0.5), (-1.0, 0.4)] {
            outcome.decide(logit, target);
        }
        assert_eq!((outcome.right, outcome.known), (4, 4));
        for (logit, target) in [(0.0, 0.0), (-0.1, 1.0), (f32::NAN, 0.0), (f32::NAN, 1.0)] {
            outcome.decide(logit, target);
        }
        outcome.decide(3.0, f32::NAN);
        assert_eq!((outcome.right, outcome.known), (4, 8));
    }

    #[test]
    fn nan_is_never_right() {
        for classes in [1, 2, 5, 6, 10] {
            for label in 0..classes {
                assert_eq!(counted(&vec![f32::NAN; classes], label), (0, 0));
                let mut one = vec![0.0; classes];
                one[label] = 1.0;
                one[classes - 1] = f32::NAN;
                assert_eq!(counted(&one, label), (0, 0));
            }
        }
    }
}

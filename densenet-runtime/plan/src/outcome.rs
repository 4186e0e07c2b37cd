//! The result of a batch, and the rule by which an image counts as right.

/// The result of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Mean cross-entropy over the batch, smoothed as asked.
    pub loss: f64,
    /// Images whose class alone has the highest logit.
    pub top1: usize,
    /// Images whose class is among the five highest logits; equal logits count as higher.
    pub top5: usize,
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

//! The losses of logits and their gradients, as PyTorch defines them, and the number of correct images.
//!
//! With the weight `w[c]` of a class, an image's target `t[c]`, which may be smoothed, and
//! `p = softmax(z)`:
//!
//! ```text
//! cross-entropy          sum over c of w[c] t[c] -log p[c]
//! binary cross-entropy   sum over c of w[c] t[c] softplus(-z[c]) + (1 - t[c]) softplus(z[c])
//! ```
//!
//! The sum over all images is divided by [`Targets::weight`]. Computed in f64, since it is little
//! work.

use densenet_plan::{LossWeights, Outcome, Targets};

/// A loss towards the targets of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Loss<'a> {
    /// The targets, which have been checked.
    pub targets: Targets<'a>,
    /// The weights of the network's classes.
    pub weights: &'a LossWeights,
    /// The share of a target that is spread over all classes; 0 if the targets are independent.
    pub smoothing: f32,
}

/// The slice that receives the gradient of the mean loss, batch x classes, and what the gradient is
/// multiplied by.
pub type Gradient<'a> = (&'a mut [f32], f32);

impl Loss<'_> {
    /// The outcome of logits, batch x `classes`. Writes their gradient if it is asked for.
    pub fn of<T: Into<f64> + PartialOrd + Copy>(
        &self,
        logits: &[T],
        classes: usize,
        mut gradient: Option<Gradient<'_>>,
    ) -> Outcome {
        let weight = self.targets.weight(self.weights, classes);
        let share = if weight > 0.0 { 1.0 / weight } else { 0.0 };
        let mut outcome = Outcome {
            weight,
            ..Outcome::default()
        };
        for (image, logits) in logits.chunks_exact(classes).enumerate() {
            let row = image * classes..(image + 1) * classes;
            let gradient = gradient
                .as_mut()
                .map(|(into, scale)| (&mut into[row.clone()], f64::from(*scale) * share));
            let loss = match self.targets {
                Targets::Classes(labels) => {
                    let label = labels[image] as usize;
                    outcome.count(logits, label);
                    let target = |class| f64::from(u8::from(class == label));
                    self.cross_entropy(logits, target, gradient)
                }
                Targets::Probabilities(values) => {
                    let targets = &values[row];
                    outcome.count(logits, most_probable(targets));
                    self.cross_entropy(logits, |class| targets[class].into(), gradient)
                }
                Targets::Independent(values) => {
                    let targets = &values[row];
                    for (&logit, &target) in logits.iter().zip(targets) {
                        outcome.decide(logit, target);
                    }
                    self.binary_cross_entropy(logits, targets, gradient)
                }
            };
            outcome.loss += share * loss;
        }
        outcome
    }

    /// The cross-entropy of an image. Writes the gradient of the logits, times a factor, if it is
    /// asked for.
    fn cross_entropy<T: Into<f64> + Copy>(
        &self,
        logits: &[T],
        target: impl Fn(usize) -> f64,
        gradient: Option<(&mut [f32], f64)>,
    ) -> f64 {
        let logits = || logits.iter().map(|&logit| logit.into());
        let highest = logits().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logits().map(|logit| (logit - highest).exp()).sum();
        let log_total = total.ln() + highest;
        let smoothing = f64::from(self.smoothing);
        let spread = smoothing / logits().len() as f64;
        let weighted = |class| {
            f64::from(self.weights.of_class(class)) * ((1.0 - smoothing) * target(class) + spread)
        };
        if let Some((gradient, factor)) = gradient {
            let mass: f64 = (0..gradient.len()).map(weighted).sum();
            for (class, (into, logit)) in gradient.iter_mut().zip(logits()).enumerate() {
                let probability = (logit - log_total).exp();
                *into = (factor * (mass * probability - weighted(class))) as f32;
            }
        }
        // A class of weight 0 is not left out: if its logit is not finite, neither is the loss.
        let each = logits().enumerate();
        each.map(|(class, logit)| weighted(class) * (log_total - logit))
            .sum()
    }

    /// The binary cross-entropy of an image's known targets. Writes the gradient of the logits,
    /// times a factor, if it is asked for.
    fn binary_cross_entropy<T: Into<f64> + Copy>(
        &self,
        logits: &[T],
        targets: &[f32],
        mut gradient: Option<(&mut [f32], f64)>,
    ) -> f64 {
        let mut loss = 0.0;
        for (class, (&logit, &target)) in logits.iter().zip(targets).enumerate() {
            let logit = logit.into();
            let (yes, no) = if target.is_nan() {
                (0.0, 0.0)
            } else {
                let target = f64::from(target);
                let weight = f64::from(self.weights.of_positive(class));
                (weight * target, 1.0 - target)
            };
            // An unknown target is not left out, for the same reason.
            loss += yes * softplus(-logit) + no * softplus(logit);
            if let Some((gradient, factor)) = &mut gradient {
                let slope = no * sigmoid(logit) - yes * sigmoid(-logit);
                gradient[class] = (*factor * slope) as f32;
            }
        }
        loss
    }
}

/// The class with the highest probability; the first of equals.
fn most_probable(targets: &[f32]) -> usize {
    let mut best = 0;
    for (class, &target) in targets.iter().enumerate() {
        if target > targets[best] {
            best = class;
        }
    }
    best
}

/// `log(1 + exp(x))`, without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss<'a>(targets: Targets<'a>, weights: &'a LossWeights) -> Loss<'a> {
        Loss {
            targets,
            weights,
            smoothing: 0.0,
        }
    }

    #[test]
    fn a_batch_without_known_targets_has_no_loss_and_no_gradient() {
        let weights = LossWeights::default();
        let mut gradient = [f32::NAN; 4];
        let found = loss(Targets::Independent(&[f32::NAN; 4]), &weights).of(
            &[3.0f32, -1.0, 0.0, 5.0],
            2,
            Some((&mut gradient, 1.0)),
        );
        assert_eq!(found, Outcome::default());
        assert_eq!(gradient, [0.0; 4]);
    }

    #[test]
    fn a_batch_of_classes_of_weight_0_has_no_loss_and_no_gradient() {
        let weights = LossWeights {
            classes: vec![0.0, 1.0],
            ..LossWeights::default()
        };
        let mut gradient = [f32::NAN; 2];
        let found = loss(Targets::Classes(&[0]), &weights).of(
            &[1.0f32, 2.0],
            2,
            Some((&mut gradient, 1.0)),
        );
        assert_eq!((found.loss, found.weight), (0.0, 0.0));
        assert_eq!(gradient, [0.0; 2]);
    }

    #[test]
    fn no_target_hides_a_logit_that_is_not_finite() {
        let weights = LossWeights {
            classes: vec![0.0, 1.0, 1.0],
            ..LossWeights::default()
        };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let logits = [bad, 1.0, 2.0];
            for targets in [
                Targets::Classes(&[1]),
                Targets::Probabilities(&[0.0, 0.5, 0.5]),
                Targets::Independent(&[f32::NAN, 1.0, 0.0]),
            ] {
                let found = loss(targets, &weights).of(&logits, 3, None);
                assert!(!found.loss.is_finite(), "{bad}: {found:?}");
            }
        }
    }

    #[test]
    fn the_class_of_probabilities_is_the_first_of_the_most_probable() {
        let weights = LossWeights::default();
        let logits = [0.0, 2.0, 1.0];
        let top1 = |targets: &[f32]| {
            loss(Targets::Probabilities(targets), &weights)
                .of(&logits, 3, None)
                .top1
        };
        assert_eq!(top1(&[0.2, 0.5, 0.3]), 1);
        assert_eq!(top1(&[0.4, 0.4, 0.2]), 0);
        assert_eq!(top1(&[0.0, 0.5, 0.5]), 1);
    }
}

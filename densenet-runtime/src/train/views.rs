//! Evaluates several views of an image as one: the paper's ten crops (section 4.4, table 3).

use super::score::Kept;
use crate::Targets;

/// The mean logits and the targets of images with `views` consecutive rows of both each. The logits
/// are averaged as in fb.resnet.torch.
pub(super) fn merged(
    logits: &[f32],
    targets: Targets<'_>,
    views: usize,
    classes: usize,
) -> (Vec<f64>, Kept) {
    let mut means = vec![0.0; logits.len() / views];
    let rows = logits.chunks_exact(classes * views);
    for (mean, rows) in means.chunks_exact_mut(classes).zip(rows) {
        for row in rows.chunks_exact(classes) {
            for (mean, &logit) in mean.iter_mut().zip(row) {
                *mean += f64::from(logit) / views as f64;
            }
        }
    }
    let rows_of = |values: &[f32]| -> Vec<f32> {
        let rows = values.chunks_exact(classes).step_by(views);
        rows.flatten().copied().collect()
    };
    let targets = match targets {
        Targets::Classes(labels) => Kept::Classes(labels.iter().step_by(views).copied().collect()),
        Targets::Probabilities(values) => Kept::Probabilities(rows_of(values)),
        Targets::Independent(values) => Kept::Independent(rows_of(values)),
    };
    (means, targets)
}

#[cfg(test)]
mod tests {
    use densenet_cpu::loss::Loss;

    use super::*;
    use crate::{LossWeights, Outcome};

    fn of_classes(logits: &[f32], labels: &[u32], views: usize, classes: usize) -> Outcome {
        of(logits, Targets::Classes(labels), views, classes)
    }

    fn of(logits: &[f32], targets: Targets<'_>, views: usize, classes: usize) -> Outcome {
        let (logits, targets) = merged(logits, targets, views, classes);
        let loss = Loss {
            targets: targets.targets(),
            weights: &LossWeights::default(),
            smoothing: 0.0,
        };
        loss.of(&logits, classes, None)
    }

    #[test]
    fn an_image_is_judged_by_the_mean_of_its_views() {
        // Two images of two views; class 0 is right for both. The first image's second view is
        // wrong, but less so than the first is right; the second image's the other way round.
        let logits = [2.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 2.0];
        let found = of_classes(&logits, &[0; 4], 2, 2);
        assert_eq!((found.top1, found.top5), (1, 2));
        // Means 1 and 0.5, and 0.5 and 1.
        let loss = |difference: f64| (1.0 + difference.exp()).ln();
        assert!((found.loss - (loss(-0.5) + loss(0.5)) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_network_that_says_nothing_is_not_right() {
        for value in [0.0, f32::NAN] {
            for classes in [3, 10] {
                let found = of_classes(&vec![value; 2 * classes], &[1; 2], 2, classes);
                let top5 = usize::from(classes < 5 && value == 0.0);
                assert_eq!((found.top1, found.top5), (0, top5));
            }
        }
    }

    #[test]
    fn one_view_is_an_image() {
        let logits = [0.1, 0.9, 0.3, -4.0, 0.0, 5.0];
        let found = of_classes(&logits, &[1, 0], 1, 3);
        assert_eq!((found.top1, found.top5), (1, 2));
    }

    #[test]
    fn independent_targets_are_judged_by_the_mean_too() {
        // Means 1 and -1; then -1 and 2, whose first target is unknown.
        let logits = [3.0, 0.0, -1.0, -2.0, -1.0, 1.0, -1.0, 3.0];
        let nan = f32::NAN;
        let targets = [1.0, 1.0, 1.0, 1.0, nan, 1.0, nan, 1.0];
        let found = of(&logits, Targets::Independent(&targets), 2, 2);
        assert_eq!((found.known, found.right), (3, 2));
        let loss = |logit: f64| (1.0 + (-logit).exp()).ln();
        assert!((found.loss - (loss(1.0) + loss(-1.0) + loss(2.0)) / 3.0).abs() < 1e-12);
    }
}

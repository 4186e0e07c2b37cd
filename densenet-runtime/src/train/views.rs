//! Evaluates several views of an image as one: the paper's ten crops (section 4.4, table 3).

use densenet_cpu::loss::Loss;

use crate::{Outcome, Targets};

/// The result for images that each have `views` rows of logits, one after another. The logits of an
/// image are averaged, as in fb.resnet.torch; the targets have an entry for each row.
pub(super) fn outcome(logits: &[f32], loss: Loss<'_>, views: usize, classes: usize) -> Outcome {
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
    let judge = |targets| Loss { targets, ..loss }.of(&means, classes, None);
    match loss.targets {
        Targets::Classes(labels) => {
            let labels: Vec<u32> = labels.iter().step_by(views).copied().collect();
            judge(Targets::Classes(&labels))
        }
        Targets::Probabilities(values) => judge(Targets::Probabilities(&rows_of(values))),
        Targets::Independent(values) => judge(Targets::Independent(&rows_of(values))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LossWeights;

    fn of_classes(logits: &[f32], labels: &[u32], views: usize, classes: usize) -> Outcome {
        of(logits, Targets::Classes(labels), views, classes)
    }

    fn of(logits: &[f32], targets: Targets<'_>, views: usize, classes: usize) -> Outcome {
        let loss = Loss {
            targets,
            weights: &LossWeights::default(),
            smoothing: 0.0,
        };
        outcome(logits, loss, views, classes)
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

//! Evaluates several views of an image as one: the paper's ten crops (section 4.4, table 3).

use crate::Outcome;

/// The result for images that each have `views` rows of logits, one after another. The logits of an
/// image are averaged, as in fb.resnet.torch; `labels` has an entry for each row.
pub(super) fn outcome(logits: &[f32], labels: &[u32], views: usize, classes: usize) -> Outcome {
    let images = labels.len() / views;
    let mut outcome = Outcome::default();
    let rows = logits.chunks_exact(classes * views);
    for (rows, labels) in rows.zip(labels.chunks_exact(views)) {
        let mut mean = vec![0.0; classes];
        for row in rows.chunks_exact(classes) {
            for (mean, &logit) in mean.iter_mut().zip(row) {
                *mean += f64::from(logit) / views as f64;
            }
        }
        let own = mean[labels[0] as usize];
        let most = mean.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = mean.iter().map(|logit| (logit - most).exp()).sum();
        outcome.loss += (most + sum.ln() - own) / images as f64;
        outcome.count(&mean, labels[0] as usize);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_judged_by_the_mean_of_its_views() {
        // Two images of two views; class 0 is right for both. The first image's second view is
        // wrong, but less so than the first is right; the second image's the other way round.
        let logits = [2.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 2.0];
        let found = outcome(&logits, &[0; 4], 2, 2);
        assert_eq!((found.top1, found.top5), (1, 2));
        // Means 1 and 0.5, and 0.5 and 1.
        let loss = |difference: f64| (1.0 + difference.exp()).ln();
        assert!((found.loss - (loss(-0.5) + loss(0.5)) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_network_that_says_nothing_is_not_right() {
        for value in [0.0, f32::NAN] {
            for classes in [3, 10] {
                let found = outcome(&vec![value; 2 * classes], &[1; 2], 2, classes);
                let top5 = usize::from(classes < 5 && value == 0.0);
                assert_eq!((found.top1, found.top5), (0, top5));
            }
        }
    }

    #[test]
    fn one_view_is_an_image() {
        let logits = [0.1, 0.9, 0.3, -4.0, 0.0, 5.0];
        let found = outcome(&logits, &[1, 0], 1, 3);
        assert_eq!((found.top1, found.top5), (1, 2));
    }
}

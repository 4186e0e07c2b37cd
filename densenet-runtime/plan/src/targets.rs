//! The targets that a network is trained towards and evaluated against.

use std::ops::Range;

/// The targets of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// The class of each image.
    Classes(&'a [u32]),
    /// The probability of each class: batch x classes. A row adds up to 1.
    Probabilities(&'a [f32]),
    /// Whether each class applies, independently of the others: batch x classes, each in [0, 1].
    /// NaN stands for unknown, and is left out of the loss and the counts.
    Independent(&'a [f32]),
}

/// The weights of a loss.
///
/// `classes` are those of cross-entropy, and `positive` those of binary cross-entropy; each has a
/// weight for each class, or is empty if all are 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossWeights {
    /// The weight of an image by its class (PyTorch's `weight` of `cross_entropy`).
    pub classes: Vec<f32>,
    /// The weight of a class that applies, against 1 for one that does not (PyTorch's `pos_weight`
    /// of `binary_cross_entropy_with_logits`).
    pub positive: Vec<f32>,
}

impl LossWeights {
    /// The weight of a class in cross-entropy.
    pub fn of_class(&self, class: usize) -> f32 {
        self.classes.get(class).copied().unwrap_or(1.0)
    }

    /// The weight of a class that applies in binary cross-entropy.
    pub fn of_positive(&self, class: usize) -> f32 {
        self.positive.get(class).copied().unwrap_or(1.0)
    }
}

impl<'a> Targets<'a> {
    /// The number of images with these targets, for a network with this many classes. A truncated
    /// row does not count.
    pub fn images(&self, classes: usize) -> usize {
        match self {
            Self::Classes(labels) => labels.len(),
            Self::Probabilities(values) | Self::Independent(values) => {
                values.len() / classes.max(1)
            }
        }
    }

    /// The divisor of the loss: the sum of the labels' weights for classes, the number of images
    /// for probabilities, and the number of known targets for independent ones. The loss is 0 if
    /// this is 0.
    pub fn weight(&self, weights: &LossWeights, classes: usize) -> f64 {
        match self {
            Self::Classes(labels) => {
                let each = labels.iter().map(|&label| weights.of_class(label as usize));
                each.map(f64::from).sum()
            }
            Self::Probabilities(_) => self.images(classes) as f64,
            Self::Independent(values) => {
                values.iter().filter(|value| !value.is_nan()).count() as f64
            }
        }
    }

    /// The targets of some of the images; `None` if there are not that many.
    pub fn slice(&self, images: Range<usize>, classes: usize) -> Self {
        let rows = images.start.saturating_mul(classes)..images.end.saturating_mul(classes);
        match *self {
            Self::Classes(labels) => Self::Classes(labels.get(images).unwrap_or_default()),
            Self::Probabilities(values) => {
                Self::Probabilities(values.get(rows).unwrap_or_default())
            }
            Self::Independent(values) => Self::Independent(values.get(rows).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_has_the_rows_of_its_images() {
        let values = [0.5, 0.5, 0.0, 1.0, 0.25, 0.75];
        let (Targets::Probabilities(rows) | Targets::Independent(rows)) =
            Targets::Probabilities(&values).slice(1..3, 2)
        else {
            panic!("the kind has changed");
        };
        assert_eq!(rows, [0.0, 1.0, 0.25, 0.75]);
        let independent = Targets::Independent(&values);
        assert_eq!(independent.images(3), 2);
        assert_eq!(independent.slice(1..2, 3).images(3), 1);
        assert_eq!(independent.slice(1..4, 3).images(3), 0);
        assert_eq!(Targets::Classes(&[4, 5, 6]).slice(0..2, 9).images(9), 2);
    }
}

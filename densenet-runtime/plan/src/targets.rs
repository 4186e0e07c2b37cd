//! The targets that a network is trained towards and judged by.

use std::ops::Range;

/// The targets of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// The class of each image.
    Classes(&'a [u32]),
    /// The probability of each class: batch x classes. A row adds up to 1.
    Probabilities(&'a [f32]),
    /// Whether each class applies, independently of the others: batch x classes, each in [0, 1].
    /// NaN stands for unknown, and is left out of the loss and of what is counted.
    Independent(&'a [f32]),
}

impl<'a> Targets<'a> {
    /// The number of images that these are the targets of, for a network of so many classes. A row
    /// that is cut short counts as none.
    pub fn images(&self, classes: usize) -> usize {
        match self {
            Self::Classes(labels) => labels.len(),
            Self::Probabilities(values) | Self::Independent(values) => {
                values.len() / classes.max(1)
            }
        }
    }

    /// The targets of some of the images; none if there are not as many.
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

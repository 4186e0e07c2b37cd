//! The curves of a class, for plots.

/// A class's positive predictions as their threshold falls: a point for each distinct score.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// At each score: true and false positives.
    found: Vec<[u64; 2]>,
}

impl Curve {
    /// The last point has all images.
    pub(super) fn new(found: Vec<[u64; 2]>) -> Self {
        Self { found }
    }

    /// The receiver operating characteristic: false positive rates and true positive rates, from
    /// (0, 0) to (1, 1).
    pub fn roc(&self) -> Vec<[f64; 2]> {
        let all = self.found.last().copied().unwrap_or([1, 1]);
        let points = std::iter::once(&[0, 0]).chain(&self.found);
        points
            .map(|&[right, wrong]| [wrong as f64 / all[1] as f64, right as f64 / all[0] as f64])
            .collect()
    }

    /// Recall, the share of the positive images that are found, and precision, the share of
    /// positives among the images found; from (0, 1) to a recall of 1.
    pub fn precision_recall(&self) -> Vec<[f64; 2]> {
        let all = self.found.last().map_or(1, |&[right, _]| right);
        let points = self.found.iter().map(|&[right, wrong]| {
            let precision = right as f64 / (right + wrong) as f64;
            [right as f64 / all as f64, precision]
        });
        std::iter::once([0.0, 1.0]).chain(points).collect()
    }
}

//! Whether predictions are correct as often as their probabilities say.

/// Bins of confidence, equally wide and without their lower ends (Guo et al., 2017, On Calibration
/// of Modern Neural Networks).
const BINS: usize = 15;

/// The predictions whose confidence is in a range, without its lower end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationBin {
    /// The lower end.
    pub from: f64,
    /// The upper end.
    pub to: f64,
    /// How many they are.
    pub count: u64,
    /// Those that are right.
    pub right: u64,
    /// Their mean confidence; 0 if there are none.
    pub confidence: f64,
}

/// The expected calibration error: the mean difference between confidence and accuracy over bins of confidence.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calibration {
    bins: [Bin; BINS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    count: u64,
    right: u64,
    confidence: f64,
}

impl Calibration {
    /// Adds a prediction with its confidence, in [0, 1].
    pub(super) fn add(&mut self, confidence: f64, right: bool) {
        let edge = |bin: usize| (bin + 1) as f64 / BINS as f64;
        let bin = (0..BINS - 1).find(|&bin| confidence <= edge(bin));
        if let Some(bin) = self.bins.get_mut(bin.unwrap_or(BINS - 1)) {
            bin.count += 1;
            bin.right += u64::from(right);
            bin.confidence += confidence;
        }
    }

    /// The bins, from the lowest confidence to the highest.
    pub(super) fn bins(&self) -> Vec<CalibrationBin> {
        let edge = |bin: usize| bin as f64 / BINS as f64;
        let bins = self.bins.iter().enumerate();
        bins.map(|(index, bin)| CalibrationBin {
            from: edge(index),
            to: edge(index + 1),
            count: bin.count,
            right: bin.right,
            confidence: bin.confidence / bin.count.max(1) as f64,
        })
        .collect()
    }

    /// The error; `None` without predictions.
    pub(super) fn error(&self) -> Option<f64> {
        let all: u64 = self.bins.iter().map(|bin| bin.count).sum();
        let each = self
            .bins
            .iter()
            .map(|bin| (bin.right as f64 - bin.confidence).abs());
        (all > 0).then(|| each.sum::<f64>() / all as f64)
    }
}

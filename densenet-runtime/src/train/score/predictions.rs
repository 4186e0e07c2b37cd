//! The logits and targets of a whole evaluation, and their scores.

use serde::Serialize;

use super::calibration::{Calibration, CalibrationBin};
use super::curve::Curve;
use super::ranking::{Ranking, ThresholdRule};
use crate::Targets;

/// The logits and targets of a whole evaluation, image by image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    classes: usize,
    logits: Vec<f32>,
    targets: Kept,
}

/// Targets that are kept.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::train) enum Kept {
    Classes(Vec<u32>),
    Probabilities(Vec<f32>),
    Independent(Vec<f32>),
}

impl Default for Kept {
    fn default() -> Self {
        Self::Classes(Vec::new())
    }
}

impl Kept {
    pub(in crate::train) fn targets(&self) -> Targets<'_> {
        match self {
            Self::Classes(labels) => Targets::Classes(labels),
            Self::Probabilities(values) => Targets::Probabilities(values),
            Self::Independent(values) => Targets::Independent(values),
        }
    }
}

/// The scores of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ClassScore {
    /// Images whose label for the class is known.
    pub known: usize,
    /// Those that it applies to.
    pub positive: usize,
    /// For independent targets, the share of the known ones that are predicted correctly at a
    /// threshold of 0.5; otherwise the share of this class's images for which it is predicted.
    /// `None` without such images.
    pub accuracy: Option<f64>,
    /// The area under the receiver operating characteristic, of this class against all others;
    /// `None` unless the known labels are both positive and negative.
    pub auroc: Option<f64>,
    /// The average precision, in the same way.
    pub average_precision: Option<f64>,
}

/// The mean scores, each over the classes that have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MeanScores {
    /// The mean accuracy of the classes.
    pub accuracy: Option<f64>,
    /// The mean area under the receiver operating characteristic.
    pub auroc: Option<f64>,
    /// The mean of the average precisions.
    pub average_precision: Option<f64>,
    /// The expected calibration error, over 15 bins, of each image's highest probability, or of
    /// each prediction of an independent target.
    pub calibration_error: Option<f64>,
}

/// The scores of predictions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Of each class.
    pub classes: Vec<ClassScore>,
    /// Of all classes.
    pub means: MeanScores,
}

impl Predictions {
    /// No images yet, for a network with this many classes.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            ..Self::default()
        }
    }

    /// Adds images: their logits, batch x classes, and their targets, which must be of the same
    /// kind as earlier ones.
    ///
    /// # Errors
    /// What does not fit, in words. Nothing has changed then.
    pub fn add(&mut self, logits: &[f32], targets: Targets<'_>) -> Result<(), String> {
        let classes = self.classes;
        let images = targets.images(classes);
        if logits.len() != images * classes {
            return Err(format!(
                "{} logits are not those of {images} images of {classes} classes",
                logits.len()
            ));
        }
        if let Targets::Classes(labels) = targets
            && let Some(label) = labels.iter().find(|&&label| label as usize >= classes)
        {
            return Err(format!("label {label} is not one of {classes} classes"));
        }
        let is_empty = self.logits.is_empty();
        match (&mut self.targets, targets) {
            (Kept::Classes(kept), Targets::Classes(own)) => kept.extend_from_slice(own),
            (Kept::Probabilities(kept), Targets::Probabilities(own))
            | (Kept::Independent(kept), Targets::Independent(own)) => kept.extend_from_slice(own),
            (kept, Targets::Probabilities(own)) if is_empty => {
                *kept = Kept::Probabilities(own.to_vec());
            }
            (kept, Targets::Independent(own)) if is_empty => {
                *kept = Kept::Independent(own.to_vec());
            }
            (kept, Targets::Classes(own)) if is_empty => *kept = Kept::Classes(own.to_vec()),
            _ => {
                return Err(
                    "the batches of an evaluation have targets of different kinds; use one kind"
                        .into(),
                );
            }
        }
        self.logits.extend_from_slice(logits);
        Ok(())
    }

    /// The number of images.
    pub fn images(&self) -> usize {
        self.targets().images(self.classes)
    }

    /// The logits: images x classes.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The targets.
    pub fn targets(&self) -> Targets<'_> {
        self.targets.targets()
    }

    /// The probability of each class, images x classes: the sigmoid of the logits for independent
    /// targets, otherwise their softmax.
    pub fn probabilities(&self) -> Vec<f64> {
        let wide = |&logit: &f32| f64::from(logit);
        if let Kept::Independent(_) = self.targets {
            return self.logits.iter().map(wide).map(sigmoid).collect();
        }
        let mut all = Vec::with_capacity(self.logits.len());
        for row in self.rows() {
            let highest = row.iter().map(wide).fold(f64::NEG_INFINITY, f64::max);
            let start = all.len();
            all.extend(row.iter().map(wide).map(|logit| (logit - highest).exp()));
            let own = all.get_mut(start..).unwrap_or_default();
            let sum: f64 = own.iter().sum();
            own.iter_mut().for_each(|value| *value /= sum);
        }
        all
    }

    /// The share of images whose class is not among the `k` highest logits; `None` without images,
    /// and if targets are independent. Equal logits count as higher.
    pub fn top_k_error(&self, k: usize) -> Option<f64> {
        let labels = self.labels()?;
        let is_wrong = |(row, label): &(&[f32], &u32)| {
            let Some(own) = row.get(**label as usize) else {
                return true;
            };
            let not_below = row.iter().filter(|&logit| logit >= own).count();
            not_below > k || row.iter().any(|logit| logit.is_nan())
        };
        let wrong = self.rows().zip(&labels).filter(is_wrong).count();
        (!labels.is_empty()).then(|| wrong as f64 / labels.len() as f64)
    }

    /// The number of images by their class (rows) and the predicted class (columns), the first one
    /// with the highest logit: classes x classes, or empty if targets are independent.
    pub fn confusion(&self) -> Option<Vec<Vec<usize>>> {
        let labels = self.labels()?;
        let mut counts = vec![vec![0; self.classes]; self.classes];
        for (row, label) in self.rows().zip(labels) {
            let own = counts.get_mut(label as usize);
            if let Some(count) = own.and_then(|own| own.get_mut(highest(row))) {
                *count += 1;
            }
        }
        Some(counts)
    }

    /// The scores of each class, and their means.
    pub fn scores(&self) -> Scores {
        let probabilities = self.probabilities();
        let labels = self.labels();
        let confusion = self.confusion();
        let classes: Vec<ClassScore> = (0..self.classes)
            .map(|class| {
                let known = self.known(class, &probabilities, labels.as_deref());
                let positive = known.iter().filter(|(_, applies)| *applies).count();
                let accuracy = match &confusion {
                    // The share of the images of this class.
                    Some(counts) => {
                        let row = counts.get(class);
                        let right = row.and_then(|row| row.get(class)).copied().unwrap_or(0);
                        share(right, positive)
                    }
                    None => {
                        let is_right = |(logit, applies): &&(f64, bool)| {
                            !logit.is_nan() && (*logit >= 0.0) == *applies
                        };
                        share(known.iter().filter(is_right).count(), known.len())
                    }
                };
                let count = known.len();
                let ranking = Ranking::new(known);
                ClassScore {
                    known: count,
                    positive,
                    accuracy,
                    auroc: ranking.as_ref().map(Ranking::auroc),
                    average_precision: ranking.as_ref().map(Ranking::average_precision),
                }
            })
            .collect();
        let means = MeanScores {
            accuracy: mean(classes.iter().filter_map(|class| class.accuracy)),
            auroc: mean(classes.iter().filter_map(|class| class.auroc)),
            average_precision: mean(classes.iter().filter_map(|class| class.average_precision)),
            calibration_error: self.confidences(&probabilities).error(),
        };
        Scores { classes, means }
    }

    /// A threshold for each class: a prediction is positive if the probability reaches it. `None`
    /// unless the class's known labels are both positive and negative.
    pub fn thresholds(&self, rule: ThresholdRule) -> Vec<Option<f32>> {
        let (probabilities, labels) = (self.probabilities(), self.labels());
        (0..self.classes)
            .map(|class| {
                let score = Ranking::new(self.known(class, &probabilities, labels.as_deref()))?
                    .threshold(rule);
                let probability = match self.targets {
                    Kept::Independent(_) => sigmoid(score),
                    _ => score,
                };
                Some(probability as f32)
            })
            .collect()
    }

    /// The curves of each class; `None` unless its known labels are both positive and negative.
    pub fn curves(&self) -> Vec<Option<Curve>> {
        let (probabilities, labels) = (self.probabilities(), self.labels());
        let known = |class| self.known(class, &probabilities, labels.as_deref());
        let rankings = (0..self.classes).map(|class| Ranking::new(known(class)));
        rankings.map(|ranking| Some(ranking?.curve())).collect()
    }

    /// How often predictions are correct, by their confidence: the bins of the [calibration
    /// error](MeanScores::calibration_error).
    pub fn calibration(&self) -> Vec<CalibrationBin> {
        self.confidences(&self.probabilities()).bins()
    }

    fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.logits.chunks_exact(self.classes.max(1))
    }

    /// The class of each image; for probabilities, the first of the most probable ones. `None` if
    /// targets are independent.
    fn labels(&self) -> Option<Vec<u32>> {
        match &self.targets {
            Kept::Classes(labels) => Some(labels.clone()),
            Kept::Probabilities(values) => {
                let rows = values.chunks_exact(self.classes.max(1));
                Some(rows.map(|row| highest(row) as u32).collect())
            }
            Kept::Independent(_) => None,
        }
    }

    /// The score of each image with a known label for a class, and whether the label is positive.
    /// The score is the logit of an independent target, which is never rounded to 1, or else the
    /// probability. `labels` are the images' classes, which independent targets do not have.
    fn known(
        &self,
        class: usize,
        probabilities: &[f64],
        labels: Option<&[u32]>,
    ) -> Vec<(f64, bool)> {
        let column = |image: usize| image * self.classes + class;
        if let Kept::Independent(targets) = &self.targets {
            let known = (0..self.images()).filter_map(|image| {
                let logit = self.logits.get(column(image))?;
                let target = targets.get(column(image))?;
                (!target.is_nan()).then_some((f64::from(*logit), *target >= 0.5))
            });
            return known.collect();
        }
        let labels = labels.unwrap_or_default().iter().enumerate();
        let known = labels.filter_map(|(image, &label)| {
            let probability = probabilities.get(column(image))?;
            Some((*probability, label as usize == class))
        });
        known.collect()
    }

    fn confidences(&self, probabilities: &[f64]) -> Calibration {
        let mut calibration = Calibration::default();
        if let Kept::Independent(targets) = &self.targets {
            let known = self.logits.iter().zip(probabilities).zip(targets);
            for ((&logit, &probability), target) in known.filter(|(_, target)| !target.is_nan()) {
                let yes = logit >= 0.0;
                let confidence = if yes { probability } else { 1.0 - probability };
                calibration.add(confidence, yes == (*target >= 0.5));
            }
            return calibration;
        }
        let labels = self.labels().unwrap_or_default();
        let rows = probabilities.chunks_exact(self.classes.max(1));
        for ((logits, row), label) in self.rows().zip(rows).zip(labels) {
            let confidence = row.iter().copied().fold(0.0, f64::max);
            calibration.add(confidence, highest(logits) == label as usize);
        }
        calibration
    }

    /// The evaluation as numbers, to be combined with those of other ranks.
    pub(in crate::train) fn to_numbers(&self) -> Vec<f64> {
        let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect();
        let targets: Vec<f64> = match &self.targets {
            Kept::Classes(labels) => labels.iter().map(|&label| f64::from(label)).collect(),
            Kept::Probabilities(values) | Kept::Independent(values) => wide(values),
        };
        let logits: Vec<f64> = wide(&self.logits);
        let width = targets.len() / self.images().max(1);
        let mut numbers = Vec::with_capacity(logits.len() + targets.len());
        let targets = targets.chunks_exact(width.max(1));
        for (row, targets) in logits.chunks_exact(self.classes.max(1)).zip(targets) {
            numbers.extend_from_slice(row);
            numbers.extend_from_slice(targets);
        }
        numbers
    }

    /// The evaluation of all ranks, whose targets are of the same kind as those of `like`.
    pub(in crate::train) fn of_numbers(classes: usize, numbers: &[f64], like: Targets<'_>) -> Self {
        let width = match like {
            Targets::Classes(_) => 1,
            Targets::Probabilities(_) | Targets::Independent(_) => classes,
        };
        let mut logits = Vec::new();
        let mut targets = Vec::new();
        for row in numbers.chunks_exact(classes + width) {
            let (own, wanted) = row.split_at(classes);
            logits.extend(own.iter().map(|&value| value as f32));
            targets.extend_from_slice(wanted);
        }
        let narrow = || targets.iter().map(|&value| value as f32).collect();
        let targets = match like {
            Targets::Classes(_) => {
                Kept::Classes(targets.iter().map(|&label| label as u32).collect())
            }
            Targets::Probabilities(_) => Kept::Probabilities(narrow()),
            Targets::Independent(_) => Kept::Independent(narrow()),
        };
        Self {
            classes,
            logits,
            targets,
        }
    }
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

fn share(part: usize, of: usize) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// The first of the highest values.
fn highest(row: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (class, &value) in row.iter().enumerate() {
        if value > best.1 {
            best = (class, value);
        }
    }
    best.0
}

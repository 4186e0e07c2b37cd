//! The sums of an evaluation, batch by batch.

use super::TrainError;
use super::score::Predictions;
use crate::{Executor, Outcome, Targets};

/// The outcomes of batches, and their predictions if scores need all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) images: usize,
    outcome: Outcome,
    classes: usize,
    /// Whether predictions for targets of any kind are kept; those for independent targets always are.
    keeps_all: bool,
    predictions: Option<Predictions>,
}

impl Tally {
    /// Of a network with this many classes.
    pub(super) fn new(classes: usize, keeps_all: bool) -> Self {
        Self {
            classes,
            keeps_all,
            ..Self::default()
        }
    }

    /// Whether the predictions for these targets are kept.
    pub(super) fn keeps(&self, targets: Targets<'_>) -> bool {
        self.keeps_all || matches!(targets, Targets::Independent(_))
    }

    /// Adds the outcome of this many images.
    pub(super) fn add(&mut self, own: Outcome, images: usize) {
        let all = &mut self.outcome;
        self.images += images;
        // The loss is a sum until it is read.
        all.loss += own.loss * own.weight;
        all.weight += own.weight;
        all.top1 += own.top1;
        all.top5 += own.top5;
        all.known += own.known;
        all.right += own.right;
    }

    /// Adds the logits of images, which are [kept](Self::keeps).
    pub(super) fn keep(&mut self, logits: &[f32], targets: Targets<'_>) -> Result<(), TrainError> {
        let classes = self.classes;
        let all = self
            .predictions
            .get_or_insert_with(|| Predictions::new(classes));
        all.add(logits, targets)
            .map_err(|problem| TrainError::Data(problem.into()))
    }

    /// Adds the evaluations of the other ranks. All ranks call this, with images or without.
    pub(super) fn total(self, executor: &mut dyn Executor) -> Result<Self, TrainError> {
        let Outcome {
            loss,
            weight,
            top1,
            top5,
            known,
            right,
        } = self.outcome;
        let kept = self.predictions.as_ref().map(Predictions::targets);
        let [classes, probabilities, independent] = [
            matches!(kept, Some(Targets::Classes(_))),
            matches!(kept, Some(Targets::Probabilities(_))),
            matches!(kept, Some(Targets::Independent(_))),
        ]
        .map(|is_kept| f64::from(u8::from(is_kept)));
        // Counts are exact in f64 up to 2^53.
        let counts = [self.images, top1, top5, known, right];
        let [images, top1, top5, known, right] = counts.map(|count| count as f64);
        let mut sums = [
            loss,
            weight,
            images,
            top1,
            top5,
            known,
            right,
            classes,
            probabilities,
            independent,
        ];
        executor.total(&mut sums)?;
        let [loss, weight, images, top1, top5, known, right, kinds @ ..] = sums;
        let like = match kinds.map(|ranks| ranks > 0.0) {
            [false, false, false] => None,
            [true, false, false] => Some(Targets::Classes(&[])),
            [false, true, false] => Some(Targets::Probabilities(&[])),
            [false, false, true] => Some(Targets::Independent(&[])),
            _ => {
                return Err(mixed());
            }
        };
        let predictions = match like {
            None => None,
            Some(like) => {
                let own = self.predictions.as_ref().map(Predictions::to_numbers);
                let all = executor.gather(&own.unwrap_or_default())?;
                let all = Predictions::of_numbers(self.classes, &all, like);
                if all.images() as f64 != images {
                    return Err(mixed());
                }
                Some(all)
            }
        };
        let outcome = Outcome {
            loss,
            weight,
            top1: top1 as usize,
            top5: top5 as usize,
            known: known as usize,
            right: right as usize,
        };
        Ok(Self {
            images: images as usize,
            outcome,
            predictions,
            ..self
        })
    }

    /// The outcome of all images; the loss is 0 if no target is known.
    pub(super) fn outcome(&self) -> Outcome {
        let Outcome { loss, weight, .. } = self.outcome;
        Outcome {
            loss: if weight > 0.0 { loss / weight } else { 0.0 },
            ..self.outcome
        }
    }

    pub(super) fn into_predictions(self) -> Option<Predictions> {
        self.predictions
    }

    /// The predictions that were kept.
    pub(super) fn predictions(&self) -> Option<&Predictions> {
        self.predictions.as_ref()
    }
}

fn mixed() -> TrainError {
    TrainError::Data(
        "the images of an evaluation have targets of different kinds; use one kind".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_all_images_is_the_mean_over_their_weights() {
        let of = |loss, weight| Outcome {
            loss,
            weight,
            top1: 1,
            ..Outcome::default()
        };
        let mut tally = Tally::default();
        tally.add(of(2.0, 1.0), 4);
        tally.add(of(4.0, 3.0), 2);
        // A batch without known targets.
        tally.add(of(0.0, 0.0), 1);
        let all = tally.outcome();
        assert_eq!((all.loss, all.top1, tally.images), (3.5, 3, 7));
        assert_eq!(Tally::default().outcome().loss, 0.0);
    }
}

//! What an evaluation adds up, batch by batch.

use crate::Outcome;

/// The outcomes of batches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) images: usize,
    outcome: Outcome,
}

impl Tally {
    /// Adds the outcome of so many images.
    pub(super) fn add(&mut self, own: Outcome, images: usize) {
        let all = &mut self.outcome;
        self.images += images;
        // The loss is a sum until it is asked for.
        all.loss += own.loss * own.weight;
        all.weight += own.weight;
        all.top1 += own.top1;
        all.top5 += own.top5;
        all.known += own.known;
        all.right += own.right;
    }

    /// Its numbers, to be added up over all ranks, and put back. Counts are exact in f64 up to 2^53.
    pub(super) fn sums(&self) -> [f64; 7] {
        let Outcome {
            loss,
            weight,
            top1,
            top5,
            known,
            right,
        } = self.outcome;
        let counts = [self.images, top1, top5, known, right];
        let [images, top1, top5, known, right] = counts.map(|count| count as f64);
        [loss, weight, images, top1, top5, known, right]
    }

    /// The sums of all ranks.
    pub(super) fn of_sums([loss, weight, images, top1, top5, known, right]: [f64; 7]) -> Self {
        let outcome = Outcome {
            loss,
            weight,
            top1: top1 as usize,
            top5: top5 as usize,
            known: known as usize,
            right: right as usize,
        };
        Self {
            images: images as usize,
            outcome,
        }
    }

    /// The outcome of all images; a loss of 0 if nothing is known of them.
    pub(super) fn outcome(&self) -> Outcome {
        let Outcome { loss, weight, .. } = self.outcome;
        Outcome {
            loss: if weight > 0.0 { loss / weight } else { 0.0 },
            ..self.outcome
        }
    }
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
        // A batch of which nothing is known.
        tally.add(of(0.0, 0.0), 1);
        let other_rank = Tally::of_sums(tally.sums());
        assert_eq!(other_rank.outcome(), tally.outcome());
        let all = tally.outcome();
        assert_eq!((all.loss, all.top1, tally.images), (3.5, 3, 7));
        assert_eq!(Tally::default().outcome().loss, 0.0);
    }
}

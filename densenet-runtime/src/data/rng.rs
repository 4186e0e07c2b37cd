//! A random generator whose numbers are the same everywhere.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// The random generator of one image in one epoch.
///
/// Its numbers depend only on seed, epoch and image, not on the thread that loads the image or on
/// earlier loads. The numbers are ChaCha8's, and every method here says how it uses them, so that
/// they are the same in every version and on every machine.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The numbers of image `index` in an epoch.
    pub fn new(seed: u64, epoch: u64, index: u64) -> Self {
        // The triple is the cipher's key, so different triples give unrelated numbers.
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..24].copy_from_slice(&index.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A number in [0, 1): a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number in [`low`, `high`).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number in [0, `bound`), all equally likely; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        if bound == 0 {
            return 0;
        }
        // The numbers that are left over at the top would make the smallest results likelier.
        let fair = u64::MAX - u64::MAX % bound;
        loop {
            let number = self.0.next_u64();
            if number < fair {
                return (number % bound) as usize;
            }
        }
    }

    /// True half of the time.
    pub fn coin(&mut self) -> bool {
        self.0.next_u32() & 1 == 1
    }

    /// True with a probability. Of one half this is a [`coin`](Self::coin); of none and of certainty
    /// no number is drawn.
    pub fn chance(&mut self, probability: f64) -> bool {
        if probability <= 0.0 || probability >= 1.0 {
            probability >= 1.0
        } else if probability == 0.5 {
            self.coin()
        } else {
            self.unit() < probability
        }
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    /// A change here changes every training run of the past.
    #[test]
    fn the_numbers_stay_what_they_are() {
        let mut rng = Rng::new(1, 2, 3);
        let numbers: Vec<usize> = (0..6).map(|_| rng.below(1000)).collect();
        assert_eq!(numbers, [936, 178, 232, 783, 440, 295]);
        assert_eq!(rng.unit(), 0.9809223477878601);
    }

    #[test]
    fn seed_epoch_and_index_each_change_the_numbers() {
        let first = |seed, epoch, index| Rng::new(seed, epoch, index).below(usize::MAX);
        let all = [
            first(0, 0, 0),
            first(1, 0, 0),
            first(0, 1, 0),
            first(0, 0, 1),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(!all[..i].contains(a));
        }
    }

    #[test]
    fn below_is_even_over_its_range() {
        let mut rng = Rng::new(0, 0, 0);
        let mut counts = [0; 5];
        for _ in 0..5000 {
            counts[rng.below(5)] += 1;
        }
        assert!(
            counts.iter().all(|&n| (900..1100).contains(&n)),
            "{counts:?}"
        );
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<usize> = (0..100).collect();
        Rng::new(0, 0, 0).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}

//! Dropout without a mask in memory: whether a value is kept is a function of its position.

/// Dropout at one site of the network, in one step.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    key: u64,
    rule: densenet_plan::Dropout,
}

impl Dropout {
    /// Zeroes values with this probability; `None` if it is 0.
    pub fn new(probability: f64, seed: u64, site: usize) -> Option<Self> {
        Some(Self {
            key: mix(seed ^ mix(site as u64)),
            rule: densenet_plan::Dropout::new(probability)?,
        })
    }

    /// The factor of value number `index` of the site: 0, or 1 / (1 - probability).
    #[inline(always)]
    pub fn factor(&self, index: usize) -> f32 {
        let bits = mix(self
            .key
            .wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        if (bits >> 32) as u32 >= self.rule.threshold {
            self.rule.scale
        } else {
            0.0
        }
    }

    /// Applies dropout to consecutive values; the first is number `first`.
    #[inline(always)]
    pub fn apply(&self, first: usize, values: &mut [f32]) {
        for (i, value) in values.iter_mut().enumerate() {
            *value *= self.factor(first + i);
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
#[inline(always)]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_zeros_is_the_probability_and_the_mean_is_kept() {
        let dropout = Dropout::new(0.2, 7, 3).unwrap();
        let n = 100_000;
        let mut values = vec![1.0f32; n];
        dropout.apply(0, &mut values);
        let zeros = values.iter().filter(|&&value| value == 0.0).count() as f64 / n as f64;
        assert!((zeros - 0.2).abs() < 0.005, "{zeros}");
        let mean = values.iter().sum::<f32>() / n as f32;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
    }

    #[test]
    fn sites_and_steps_differ_and_repeat() {
        let mask = |seed, site| -> Vec<bool> {
            let dropout = Dropout::new(0.5, seed, site).unwrap();
            (0..64).map(|index| dropout.factor(index) > 0.0).collect()
        };
        assert_eq!(mask(1, 1), mask(1, 1));
        assert_ne!(mask(1, 1), mask(1, 2));
        assert_ne!(mask(1, 1), mask(2, 1));
    }

    #[test]
    fn without_a_probability_there_is_no_dropout() {
        assert!(Dropout::new(0.0, 1, 1).is_none());
    }
}

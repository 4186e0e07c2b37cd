//! The references' arithmetic.

use crate::Precision;

/// Numbers that look random and are always the same (SplitMix64).
pub struct Numbers(u64);

impl Numbers {
    /// Starts a row of numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// In [-1, 1).
    pub fn draw(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// This many in [middle - reach, middle + reach).
    pub fn around(&mut self, count: usize, middle: f32, reach: f32) -> Vec<f32> {
        (0..count).map(|_| middle + reach * self.draw()).collect()
    }

    /// This many in [-1, 1).
    pub fn take(&mut self, count: usize) -> Vec<f32> {
        self.around(count, 0.0, 1.0)
    }
}

/// This many in [-1, 1).
pub fn random(count: usize, seed: u64) -> Vec<f32> {
    Numbers::new(seed).take(count)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(z: u64) -> u64 {
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Dropout of a site, as constants and as factors.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// The step's seed.
    pub seed: u64,
    /// The site; negative: nothing is dropped.
    pub site: i32,
}

impl Dropout {
    const THRESHOLD: u32 = u32::MAX / 4;
    const SCALE: f32 = 4.0 / 3.0;

    /// The constants of a program with dropout.
    pub const CONSTANTS: [(&'static str, usize); 3] = [
        ("DROPOUT", 1),
        ("DROPOUT_THRESHOLD", Self::THRESHOLD as usize),
        ("DROPOUT_SCALE", 0x3faa_aaab),
    ];

    /// The factor of value number `index`.
    pub fn factor(&self, index: usize) -> f32 {
        if self.site < 0 {
            return 1.0;
        }
        let key = mix(self.seed ^ mix(self.site as u64));
        let bits = mix(key.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        if (bits >> 32) as u32 >= Self::THRESHOLD {
            Self::SCALE
        } else {
            0.0
        }
    }
}

/// BN of a consumer: multiply-add, and the mean that undoing it needs.
pub struct Norm {
    /// Scale of each channel.
    pub scale: Vec<f32>,
    /// Shift of each channel.
    pub shift: Vec<f32>,
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Gamma of each channel.
    pub gamma: Vec<f32>,
}

impl Norm {
    /// Numbers for this many channels.
    pub fn random(channels: usize, seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        Self {
            scale: numbers.around(channels, 1.0, 0.5),
            shift: numbers.around(channels, 0.1, 0.5),
            mean: numbers.around(channels, 0.0, 0.3),
            gamma: numbers.around(channels, -0.2, 1.0),
        }
    }

    /// What ReLU sees.
    pub fn before(&self, channel: usize, x: f32) -> f32 {
        x.mul_add(self.scale[channel], self.shift[channel])
    }

    /// What ReLU returns.
    pub fn after(&self, channel: usize, x: f32) -> f32 {
        self.before(channel, x).max(0.0)
    }
}

/// The largest difference, relative to the largest value expected, is at most `tolerance`; a NaN
/// must be exactly where it is expected.
pub fn check(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let numbers = expected.iter().filter(|value| !value.is_nan());
    let largest = numbers.fold(1e-30, |most: f64, value| most.max(value.abs()));
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let found = f64::from(found);
        let alike = if expected.is_nan() {
            found.is_nan()
        } else {
            (found - expected).abs() <= tolerance * largest
        };
        assert!(
            alike,
            "{what}: value {i} is {found}, not {expected} (the largest is {largest})"
        );
    }
}

/// The same of values that were rounded to be stored: in bf16 each may be a last bit off.
pub fn check_stored(what: &str, precision: Precision, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    match precision {
        Precision::F32 => check(what, found, expected, 1e-5),
        Precision::Bf16 => {
            let numbers = expected.iter().filter(|value| !value.is_nan());
            let floor = 1e-5 * numbers.fold(1e-30, |most: f64, value| most.max(value.abs()));
            for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
                let found = f64::from(found);
                let alike = if expected.is_nan() {
                    found.is_nan()
                } else {
                    (found - expected).abs() <= expected.abs() / 250.0 + floor
                };
                assert!(alike, "{what}: value {i} is {found}, not {expected}");
            }
        }
    }
}

//! An exact fraction, so that `floor(theta * m)` never depends on rounding.

use std::fmt;
use std::str::FromStr;

/// A non-negative fraction `numerator / denominator`, in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    numerator: u64,
    denominator: u64,
}

impl Ratio {
    /// The fraction 1.
    pub const ONE: Self = Self::new(1, 1);

    /// The fraction `numerator / denominator`. A denominator of zero counts as one.
    pub const fn new(numerator: u64, denominator: u64) -> Self {
        let denominator = if denominator == 0 { 1 } else { denominator };
        let divisor = gcd(numerator, denominator);
        Self {
            numerator: numerator / divisor,
            denominator: denominator / divisor,
        }
    }

    /// The numerator, in lowest terms.
    pub const fn numerator(self) -> u64 {
        self.numerator
    }

    /// The denominator, in lowest terms.
    pub const fn denominator(self) -> u64 {
        self.denominator
    }

    /// `floor(self * m)`, exactly; `None` if it does not fit.
    pub fn floor_of(self, m: usize) -> Option<usize> {
        let product = u128::from(self.numerator) * m as u128;
        usize::try_from(product / u128::from(self.denominator)).ok()
    }

    /// Whether the fraction is zero.
    pub const fn is_zero(self) -> bool {
        self.numerator == 0
    }

    /// Whether the fraction is more than one.
    pub const fn exceeds_one(self) -> bool {
        self.numerator > self.denominator
    }
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    if a == 0 { 1 } else { a }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.numerator as f64 / self.denominator as f64)
    }
}

/// The digits are not a fraction that fits in 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseRatioError;

impl fmt::Display for ParseRatioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected decimal digits such as 0.5, at most 18 of them")
    }
}

impl std::error::Error for ParseRatioError {}

impl FromStr for Ratio {
    type Err = ParseRatioError;

    /// Reads decimal digits exactly: `0.5`, `1`, `.25`, `5e-1`, with `_` between digits allowed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.replace('_', "");
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (
                mantissa,
                exponent.parse::<i32>().map_err(|_| ParseRatioError)?,
            ),
            None => (text.as_str(), 0),
        };
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let part = part.trim_end_matches('0');
        let digits = format!("{whole}{part}");
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            // `0.0` leaves "0"; only a lone `.` or invalid characters end here.
            return Err(ParseRatioError);
        }
        let numerator = digits.parse::<u64>().map_err(|_| ParseRatioError)?;
        let scale = i32::try_from(part.len()).map_err(|_| ParseRatioError)?;
        let power = exponent.checked_sub(scale).ok_or(ParseRatioError)?;
        let ten = 10u64
            .checked_pow(power.unsigned_abs())
            .ok_or(ParseRatioError)?;
        if power < 0 {
            Ok(Self::new(numerator, ten))
        } else {
            let numerator = numerator.checked_mul(ten).ok_or(ParseRatioError)?;
            Ok(Self::new(numerator, 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_exactly() {
        for (text, expected) in [
            ("0.5", Ratio::new(1, 2)),
            ("1", Ratio::ONE),
            ("1.0", Ratio::ONE),
            ("0.29", Ratio::new(29, 100)),
            ("5e-1", Ratio::new(1, 2)),
            ("0.1_25", Ratio::new(1, 8)),
            ("0.0", Ratio::new(0, 1)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", ".", "a", "1e99", "0.123456789012345678901"] {
            assert_eq!(text.parse::<Ratio>(), Err(ParseRatioError), "{text}");
        }
    }

    #[test]
    fn the_floor_is_not_a_matter_of_rounding() {
        // In floating point 0.29 * 100 is 28.999999999999996.
        assert_eq!("0.29".parse::<Ratio>().unwrap().floor_of(100), Some(29));
    }
}

//! Bytes as people read them.

/// Bytes in the largest unit that gives at least 1, rounded up to one decimal, so that a number
/// above a budget never looks as if it fitted.
pub fn in_words(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut unit, mut scale) = ("bytes", 1u128);
    for larger in UNITS {
        if u128::from(bytes) < scale << 10 {
            break;
        }
        (unit, scale) = (larger, scale << 10);
    }
    if scale == 1 {
        return format!("{bytes} {unit}");
    }
    let tenths = (u128::from(bytes) * 10).div_ceil(scale);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn bytes_are_rounded_up_to_a_tenth_of_their_unit() {
        assert_eq!(in_words(1023), "1023 bytes");
        assert_eq!(in_words(1024), "1.0 KiB");
        assert_eq!(in_words((24 << 30) + 1), "24.1 GiB");
        assert_eq!(in_words(u64::MAX), "16.0 EiB");
    }
}

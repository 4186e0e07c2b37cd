//! Lengths that unsafe code relies on, computed so that they cannot wrap.
//!
//! A length that does not fit is `usize::MAX`, and no slice is that long.

/// The elements from the start of the first row to the end of the last row's `width`, if row r
/// starts at `r * stride`. Zero if there are no rows.
#[inline(always)]
pub const fn span(rows: usize, stride: usize, width: usize) -> usize {
    match rows.checked_sub(1) {
        Some(last) => last.saturating_mul(stride).saturating_add(width),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_ends_with_the_last_row() {
        assert_eq!(span(0, 7, 3), 0);
        assert_eq!(span(1, 7, 3), 3);
        assert_eq!(span(4, 7, 3), 24);
        assert_eq!(span(4, 0, 3), 3);
    }

    #[test]
    fn a_span_that_does_not_fit_is_longer_than_every_slice() {
        for (rows, stride, width) in [
            (2, usize::MAX, 1),
            ((1 << 63) + 1, 2, 8),
            (1 << 33, 1 << 32, 1),
            (1, 0, usize::MAX),
        ] {
            assert_eq!(span(rows, stride, width), usize::MAX);
        }
    }
}

//! Groups of parameters.

use std::ops::Range;

use super::ExecutorError;
use super::batch::check_length;

/// Parameters that move alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Where they lie, in the order of [`Plan::parameters`](crate::plan::Plan::parameters).
    pub range: Range<usize>,
    /// Their share of the learning rate.
    pub rate: f32,
    /// Their share of the weight decay.
    pub decay: f32,
}

impl Group {
    /// All `count` parameters, with the whole learning rate and weight decay.
    pub fn all(count: usize) -> Self {
        Self {
            range: 0..count,
            rate: 1.0,
            decay: 1.0,
        }
    }

    /// The parts of groups after the parameters before `first`, counted from there.
    pub(crate) fn after(groups: &[Self], first: usize) -> Vec<Self> {
        let groups = groups.iter().filter(|group| group.range.end > first);
        let rest = groups.map(|group| Self {
            range: group.range.start.saturating_sub(first)..group.range.end - first,
            ..*group
        });
        rest.collect()
    }

    /// Checks that groups have each of `count` parameters once, in their order, and shares that are
    /// 0 or more.
    pub(crate) fn check(groups: &[Self], count: usize) -> Result<(), ExecutorError> {
        let mut from = 0;
        for Self { range, rate, decay } in groups {
            let is_share = |share: f32| share.is_finite() && share >= 0.0;
            if range.start != from || range.end <= from || !is_share(*rate) || !is_share(*decay) {
                return Err(ExecutorError::Groups {
                    found: format!("{range:?} with the shares {rate} and {decay}"),
                    from,
                });
            }
            from = range.end;
        }
        check_length("the groups of parameters together", count, from)
    }
}

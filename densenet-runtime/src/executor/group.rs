//! Groups of parameters.

use std::ops::Range;

use super::ExecutorError;
use super::batch::check_length;
use crate::plan::{Plan, Role};

/// Parameters that move alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Where they lie, in the order of [`Plan::parameters`](crate::plan::Plan::parameters).
    pub range: Range<usize>,
    /// Their share of the learning rate.
    pub rate: f32,
    /// Their share of the weight decay.
    pub decay: f32,
    /// Whether they are frozen, besides an executor's first stages ([`Frozen`](crate::plan::Frozen)).
    /// Frozen parameters do not move and do not decay, whatever their shares; their gradients are
    /// zeros, which clipping does not count, and so their momentum stays 0. A BN that is frozen
    /// normalises with its running statistics in training too, and these do not move. No dropout
    /// follows a frozen convolution. Gradients flow through to what trains before.
    ///
    /// A tensor is frozen as a whole, and a BN's scale with its bias.
    pub frozen: bool,
}

impl Group {
    /// All `count` parameters, with the whole learning rate and weight decay.
    pub fn all(count: usize) -> Self {
        Self {
            range: 0..count,
            rate: 1.0,
            decay: 1.0,
            frozen: false,
        }
    }

    /// The parts of groups after the parameters before `first`, counted from there. Those that are
    /// frozen have shares of 0.
    pub(crate) fn after(groups: &[Self], first: usize) -> Vec<Self> {
        let groups = groups.iter().filter(|group| group.range.end > first);
        let rest = groups.map(|group| Self {
            range: group.range.start.saturating_sub(first)..group.range.end - first,
            rate: if group.frozen { 0.0 } else { group.rate },
            decay: if group.frozen { 0.0 } else { group.decay },
            frozen: group.frozen,
        });
        rest.collect()
    }

    /// The parameters that groups freeze, for
    /// [`FrozenTensors::in_ranges`](crate::plan::FrozenTensors::in_ranges).
    pub(crate) fn frozen(groups: &[Self]) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for group in groups.iter().filter(|group| group.frozen) {
            match ranges.last_mut() {
                Some(last) if last.end == group.range.start => last.end = group.range.end,
                _ => ranges.push(group.range.clone()),
            }
        }
        ranges
    }

    /// Checks that groups have each of a plan's parameters once, in their order, shares that are 0
    /// or more, and no tensor or BN frozen in part.
    pub(crate) fn check(groups: &[Self], plan: &Plan) -> Result<(), ExecutorError> {
        let mut from = 0;
        for group in groups {
            let Self {
                range, rate, decay, ..
            } = group;
            let is_share = |share: f32| share.is_finite() && share >= 0.0;
            if range.start != from || range.end <= from || !is_share(*rate) || !is_share(*decay) {
                return Err(ExecutorError::Groups {
                    found: format!("{range:?} with the shares {rate} and {decay}"),
                    from,
                });
            }
            from = range.end;
        }
        let what = "the groups of parameters together";
        check_length(what, plan.parameter_count(), from)?;
        Self::check_frozen(&Self::frozen(groups), plan)
    }

    /// Checks that what is frozen are whole tensors and whole BNs.
    fn check_frozen(frozen: &[Range<usize>], plan: &Plan) -> Result<(), ExecutorError> {
        if frozen.is_empty() {
            return Ok(());
        }
        let mut scale_is_frozen = false;
        for tensor in plan.parameters() {
            if !tensor.role.is_trainable() {
                continue;
            }
            let own = tensor.range();
            let overlap = |range: &Range<usize>| {
                let [start, end] = [range.start.max(own.start), range.end.min(own.end)];
                end.saturating_sub(start)
            };
            let count: usize = frozen.iter().map(overlap).sum();
            let is_frozen = count > 0;
            if is_frozen && count < own.len() {
                return Err(ExecutorError::FrozenInPart {
                    part: tensor.torchvision,
                });
            }
            match tensor.role {
                Role::NormScale => scale_is_frozen = is_frozen,
                Role::NormBias if is_frozen != scale_is_frozen => {
                    let name = &tensor.torchvision;
                    let part = name.strip_suffix(".bias").unwrap_or(name).into();
                    return Err(ExecutorError::FrozenInPart { part });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{BlockSpec, FrozenTensors, Ratio, Span, Spec, StemKind};

    #[test]
    fn neighbours_that_are_frozen_are_one_range() {
        let group = |range, frozen| Group {
            range,
            frozen,
            ..Group::all(0)
        };
        let groups = [
            group(0..2, false),
            group(2..5, true),
            group(5..6, true),
            group(6..9, false),
            group(9..10, true),
        ];
        let ranges = Group::frozen(&groups);
        assert_eq!(ranges, [2..6, 9..10]);
        let frozen = FrozenTensors::in_ranges(&ranges);
        let has = |start| frozen.has(Span { start, len: 1 });
        let expected = [2, 3, 4, 5, 9];
        assert!((0..12).all(|start| has(start) == expected.contains(&start)));
        assert_eq!(
            [0, 2, 4, 6, 9].map(|start| frozen.first_trained(start)),
            [0, 6, 6, 6, 10]
        );
        let after = Group::after(&groups, 3);
        assert_eq!((after[0].range.clone(), after[0].rate), (0..2, 0.0));
        assert_eq!((after[2].range.clone(), after[2].decay), (3..6, 1.0));
    }

    #[test]
    fn what_is_frozen_in_part_is_refused_by_name() {
        let block = BlockSpec {
            layers: 1,
            growth: 2,
        };
        let spec = Spec {
            blocks: vec![block],
            theta: Ratio::ONE,
            bottleneck: None,
            stem: StemKind::ImageNet,
            init: 4,
            input: [3, 32, 32],
            classes: 3,
            dropout: 0.0,
        };
        let plan = spec.plan().unwrap();
        let count = plan.parameter_count();
        let conv = plan.tensors().stem.conv.weight.range();
        let norm = plan.tensors().stem.norm.unwrap().trainable();
        let freeze = |range: Range<usize>| {
            let group = |range, frozen| Group {
                range,
                frozen,
                ..Group::all(count)
            };
            let groups = [
                group(0..range.start, false),
                group(range.clone(), true),
                group(range.end..count, false),
            ];
            let groups: Vec<Group> = groups
                .into_iter()
                .filter(|group| !group.range.is_empty())
                .collect();
            Group::check(&groups, &plan).map_err(|error| error.to_string())
        };
        for whole in [conv.clone(), norm.clone(), 0..norm.end, norm.start..count] {
            assert_eq!(freeze(whole), Ok(()));
        }
        for (part, name) in [
            (norm.start..norm.start + 4, "features.norm0 would"),
            (norm.start + 4..norm.end, "features.norm0 would"),
            (norm.start..norm.start + 1, "features.norm0.weight would"),
            (1..conv.end, "features.conv0.weight would"),
        ] {
            let error = freeze(part).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
    }
}

//! The groups of parameters that settings ask for.

use std::ops::Range;

use super::super::parts::{Part, trainable};
use super::super::{PartError, PartRate};
use super::Config;
use crate::Group;
use crate::plan::{FrozenTensors, Plan, Role};

impl Config {
    /// The groups of a plan's parameters, for
    /// [`Executor::set_groups`](crate::Executor::set_groups). Stages that the executor is made with as
    /// frozen ([`Freeze::of`](crate::train::Freeze::of)) are not frozen as groups.
    pub(in crate::train) fn groups(&self, plan: &Plan) -> Result<Vec<Group>, PartError> {
        let [own, _] = plan.trainable(self.freeze.of(plan)?);
        self.groups_from(plan, own.start)
    }

    /// The same for an executor that may have been made without frozen stages.
    pub(in crate::train) fn all_groups(&self, plan: &Plan) -> Result<Vec<Group>, PartError> {
        self.groups_from(plan, 0)
    }

    /// The groups, frozen from the parameter `first` on.
    fn groups_from(&self, plan: &Plan, first: usize) -> Result<Vec<Group>, PartError> {
        let mut parts = Vec::new();
        for PartRate { part, rate } in &self.part_rates {
            parts.push((Part::find(plan, part)?, *rate));
        }
        // If two match, the narrower one counts; of equal names, the last.
        parts.sort_by_key(|(part, _)| part.narrowness());
        let tensors = trainable(plan);
        let frozen = self.freeze.tensors(plan, &tensors)?;
        let mut groups: Vec<Group> = Vec::new();
        for (tensor, (range, is_frozen)) in tensors.iter().zip(frozen) {
            let rate = parts.iter().rev().find(|(part, _)| part.has(tensor));
            let is_weight = matches!(tensor.role, Role::ConvWeight | Role::LinearWeight);
            let group = Group {
                rate: rate.map_or(1.0, |(_, rate)| *rate),
                decay: if self.no_decay && !is_weight {
                    0.0
                } else {
                    1.0
                },
                frozen: is_frozen && range.start >= first,
                range,
            };
            match groups.last_mut() {
                Some(last)
                    if (last.rate, last.decay, last.frozen)
                        == (group.rate, group.decay, group.frozen) =>
                {
                    last.range.end = group.range.end;
                }
                _ => groups.push(group),
            }
        }
        Ok(groups)
    }

    /// The running statistics of a plan that are frozen.
    pub(in crate::train) fn frozen_statistics(
        &self,
        plan: &Plan,
    ) -> Result<Vec<Range<usize>>, PartError> {
        let ranges = Group::frozen(&self.groups(plan)?);
        let frozen = FrozenTensors::in_ranges(&ranges);
        let [_, own] = plan.trainable(self.freeze.of(plan)?);
        let norms = plan.norms().into_iter().map(|(norm, _)| norm);
        let norms = norms.filter(|norm| frozen.has_norm(norm));
        let of_stages = std::iter::once(0..own.start);
        Ok(of_stages.chain(norms.map(|norm| norm.running())).collect())
    }

    /// Multiply-adds of a training step with one image ([`Plan::step_multiply_adds`]).
    ///
    /// # Errors
    /// If these parts cannot be frozen.
    pub fn step_multiply_adds(&self, plan: &Plan) -> Result<u64, PartError> {
        let ranges = Group::frozen(&self.groups(plan)?);
        let frozen = FrozenTensors::in_ranges(&ranges);
        Ok(plan.step_multiply_adds(self.freeze.of(plan)?, frozen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Freeze;
    use crate::train::parts::tests::plan;

    #[test]
    fn other_frozen_parts_are_groups() {
        let plan = plan();
        for (freeze, parts) in [
            (
                Freeze::parts(["denseblock1"]),
                &["features.denseblock1."][..],
            ),
            (
                Freeze::parts(["conv0", "norm0", "transition1.conv"]),
                &["features.transition1.conv."],
            ),
            (Freeze::parts(["norms"]), &["norm"]),
            (
                Freeze::until("denseblock1.denselayer2.norm2"),
                &[
                    "features.denseblock1.denselayer1.",
                    "features.denseblock1.denselayer2.norm1.",
                    "features.denseblock1.denselayer2.conv1.",
                ],
            ),
            (Freeze::parts(["features"]), &[]),
            (Freeze::Nothing, &[]),
        ] {
            let config = Config {
                freeze: freeze.clone(),
                ..Config::imagenet()
            };
            let groups = config.groups(&plan).unwrap();
            Group::check(&groups, &plan).unwrap();
            for tensor in trainable(&plan) {
                let own = groups.iter().find(|group| group.range.end > tensor.offset);
                let expected = parts.iter().any(|part| tensor.torchvision.contains(part));
                let found = own.unwrap().frozen;
                assert_eq!(found, expected, "{freeze}: {}", tensor.torchvision);
            }
        }
    }

    #[test]
    fn the_statistics_of_frozen_norms_are_frozen() {
        let plan = plan();
        let of = |freeze| {
            let config = Config {
                freeze,
                ..Config::imagenet()
            };
            let frozen = config.frozen_statistics(&plan).unwrap();
            frozen.into_iter().map(|range| range.len()).sum::<usize>()
        };
        assert_eq!(of(Freeze::Nothing), 0);
        assert_eq!(of(Freeze::parts(["conv0"])), 0);
        // 6 channels.
        assert_eq!(of(Freeze::parts(["norm0"])), 12);
        assert_eq!(of(Freeze::until("denseblock1")), 12);
        assert_eq!(of(Freeze::until("denseblock1.denselayer1.conv1")), 24);
        assert_eq!(of(Freeze::parts(["norms"])), plan.running_count());
        assert_eq!(of(Freeze::parts(["features"])), plan.running_count());
    }

    #[test]
    fn groups_have_the_shares_of_the_longest_name() {
        let plan = plan();
        let share = |part: &str, rate| PartRate {
            part: part.into(),
            rate,
        };
        let rates = [
            share("features.denseblock1.denselayer2", 0.5),
            share("features", 0.1),
            share("norms", 0.2),
        ];
        let config = Config {
            part_rates: rates.to_vec(),
            no_decay: true,
            ..Config::imagenet()
        };
        let groups = config.groups(&plan).unwrap();
        Group::check(&groups, &plan).unwrap();
        for tensor in plan.parameters() {
            if !tensor.role.is_trainable() {
                continue;
            }
            let own = groups.iter().find(|group| group.range.end > tensor.offset);
            let own = own.unwrap();
            assert!(own.range.end >= tensor.range().end);
            let name = &tensor.torchvision;
            let rate = match name {
                name if name.contains("norm") => 0.2,
                name if name.starts_with("features.denseblock1.denselayer2.") => 0.5,
                name if name.starts_with("classifier.") => 1.0,
                _ => 0.1,
            };
            let is_matrix = tensor.shape.len() > 1;
            let decay = if is_matrix { 1.0 } else { 0.0 };
            assert_eq!((own.rate, own.decay), (rate, decay), "{name}");
        }
        let alike = Config::imagenet().groups(&plan).unwrap();
        assert_eq!(alike, [Group::all(plan.parameter_count())]);
    }
}

//! Parts of a network by name: their learning rates, and which of them are frozen.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Group;
use crate::plan::{Frozen, Parameter, Plan, Role};

/// A part of a network, and its share of the learning rate.
///
/// Parts are named as the tensors of torchvision's checkpoints begin: `features.conv0`,
/// `features.denseblock3`, `features.denseblock3.denselayer2`, `features` (all but the classifier) or
/// `classifier`. `features.` in front may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartRate {
    /// The part's name. If a tensor belongs to several parts, the longest name counts.
    pub part: String,
    /// Its share of the learning rate, 0 or more.
    pub rate: f32,
}

impl fmt::Display for PartRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.part, self.rate)
    }
}

/// The frozen parts of a network, which must be its first stages: a backward pass that stops before
/// them needs nothing from them. A frozen stage normalises with its running statistics and does not
/// change them, has no dropout, and no gradient.
///
/// ```
/// use densenet_runtime::train::{Config, Freeze};
///
/// // The classifier alone trains.
/// let head = Config { freeze: Freeze::parts(["features"]), ..Config::imagenet() };
/// // The last block and what follows it.
/// let end = Config { freeze: Freeze::until("denseblock4"), ..Config::imagenet() };
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Freeze {
    /// Nothing.
    #[default]
    Nothing,
    /// The stages before this one.
    Until(String),
    /// These parts, which are the first stages together. They are named as in [`PartRate`].
    Parts(Vec<String>),
}

impl Freeze {
    /// The stages before one, such as `denseblock4`.
    pub fn until(stage: impl Into<String>) -> Self {
        Self::Until(stage.into())
    }

    /// These parts.
    pub fn parts<S: Into<String>>(parts: impl IntoIterator<Item = S>) -> Self {
        Self::Parts(parts.into_iter().map(Into::into).collect())
    }

    /// The stages of a plan that are frozen.
    ///
    /// # Errors
    /// If a name is unknown, if the frozen parts are not the first stages, or if nothing is left to
    /// train.
    pub fn of(&self, plan: &Plan) -> Result<Frozen, PartError> {
        let stages = plan.stages();
        let count = match self {
            Self::Nothing => 0,
            Self::Until(name) => {
                let part = Part::find(plan, name)?;
                let is_it = |stage: &String| *stage == part.0;
                let Some(index) = stages.iter().position(is_it) else {
                    return Err(PartError::NoStage {
                        name: name.clone(),
                        stages: stages.join(", "),
                    });
                };
                index
            }
            Self::Parts(names) => {
                let parts: Result<Vec<Part>, PartError> =
                    names.iter().map(|name| Part::find(plan, name)).collect();
                first_stages(plan, &stages, &parts?)?
            }
        };
        if count == stages.len() {
            return Err(PartError::NothingTrains);
        }
        Ok(Frozen::first(count))
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Until(stage) => write!(f, "what is before {stage}"),
            Self::Parts(parts) => f.write_str(&parts.join(" and ")),
        }
    }
}

/// The number of first stages that some parts form together.
fn first_stages(plan: &Plan, stages: &[String], parts: &[Part]) -> Result<usize, PartError> {
    let tensors = plan.parameters();
    let mut count = 0;
    let mut trains: Option<&String> = None;
    for (index, stage) in stages.iter().enumerate() {
        // The stem's BN belongs to the stem.
        let of_stage = |tensor: &&Parameter| {
            let name = &tensor.torchvision;
            is_within(name, stage) || (index == 0 && is_within(name, "features.norm0"))
        };
        let own: Vec<&Parameter> = tensors.iter().filter(of_stage).collect();
        let frozen = |tensor: &&&Parameter| parts.iter().any(|part| part.has(tensor));
        let frozen = own.iter().filter(frozen).count();
        if frozen != 0 && frozen != own.len() {
            return Err(PartError::PartOfStage {
                stage: stage.clone(),
            });
        }
        if frozen == 0 && !own.is_empty() {
            trains = trains.or(Some(stage));
        } else if let (Some(before), false) = (trains, own.is_empty()) {
            return Err(PartError::NotFirst {
                stage: stage.clone(),
                before: before.clone(),
            });
        }
        if trains.is_none() {
            count = index + 1;
        }
    }
    Ok(count)
}

/// The groups of a plan's parameters, for [`Executor::set_groups`](crate::Executor::set_groups).
pub(super) fn groups(
    plan: &Plan,
    rates: &[PartRate],
    no_decay: bool,
) -> Result<Vec<Group>, PartError> {
    let mut parts = Vec::new();
    for PartRate { part, rate } in rates {
        parts.push((Part::find(plan, part)?, *rate));
    }
    // If two match, the longer one counts; of equal names, the last.
    parts.sort_by_key(|(part, _)| part.0.len());
    let mut groups: Vec<Group> = Vec::new();
    for parameter in plan.parameters() {
        if !parameter.role.is_trainable() {
            continue;
        }
        let own = parts.iter().rev().find(|(part, _)| part.has(&parameter));
        let rate = own.map_or(1.0, |(_, rate)| *rate);
        let is_weight = matches!(parameter.role, Role::ConvWeight | Role::LinearWeight);
        let decay = if no_decay && !is_weight { 0.0 } else { 1.0 };
        match groups.last_mut() {
            Some(last) if (last.rate, last.decay) == (rate, decay) => {
                last.range.end = parameter.range().end;
            }
            _ => groups.push(Group {
                range: parameter.range(),
                rate,
                decay,
                frozen: false,
            }),
        }
    }
    Ok(groups)
}

/// A part that a network has, by its whole name.
struct Part(String);

impl Part {
    fn find(plan: &Plan, name: &str) -> Result<Self, PartError> {
        let tensors = plan.parameters();
        let has = |name: &String| tensors.iter().any(|own| is_within(&own.torchvision, name));
        let names = [name.to_string(), format!("features.{name}")];
        if let Some(name) = names.into_iter().find(has) {
            return Ok(Self(name));
        }
        // Stages, their parts, and so on down to the tensors.
        let mut known: Vec<String> = vec!["features".into()];
        for tensor in &tensors {
            let ends = tensor.torchvision.match_indices('.').map(|(end, _)| end);
            let whole = [tensor.torchvision.len()];
            known.extend(
                ends.chain(whole)
                    .map(|end| tensor.torchvision[..end].into()),
            );
        }
        known.sort();
        known.dedup();
        let closeness = |known: &String| {
            let short = known.strip_prefix("features.").unwrap_or(known);
            strsim::jaro_winkler(known, name).max(strsim::jaro_winkler(short, name))
        };
        let nearest = known
            .into_iter()
            .max_by(|a, b| closeness(a).total_cmp(&closeness(b)));
        Err(PartError::Unknown {
            name: name.to_string(),
            nearest: nearest.unwrap_or_default(),
            stages: plan.stages().join(", "),
        })
    }

    fn has(&self, tensor: &Parameter) -> bool {
        is_within(&tensor.torchvision, &self.0)
    }
}

/// Whether a tensor's name begins with that of a part.
fn is_within(tensor: &str, part: &str) -> bool {
    let rest = tensor.strip_prefix(part);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Why parts of a network cannot train or be frozen as requested.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PartError {
    /// The network has no such part.
    #[error(
        "the network has no part `{name}`; did you mean `{nearest}`? Parts are features \
            ({stages}), the layers in each block, such as features.denseblock1.denselayer1, and \
            their tensors"
    )]
    Unknown {
        /// The name.
        name: String,
        /// The most similar name.
        nearest: String,
        /// The network's stages.
        stages: String,
    },
    /// Frozen stages end before a whole stage.
    #[error(
        "frozen stages end before a whole stage, and `{name}` is not one; the stages are \
        {stages}"
    )]
    NoStage {
        /// The name.
        name: String,
        /// The network's stages.
        stages: String,
    },
    /// A stage is frozen in part.
    #[error(
        "{stage} would be partly frozen, but stages are frozen as a whole (the stem is \
            features.conv0 and features.norm0); to keep some of its weights unchanged, give them \
            a learning-rate share of 0 instead"
    )]
    PartOfStage {
        /// The stage.
        stage: String,
    },
    /// A stage before a frozen one trains.
    #[error(
        "{stage} cannot be frozen while {before} before it trains, as gradients go through it; \
            freeze {before} as well, or give {stage} a learning-rate share of 0 instead, which \
            keeps its weights unchanged"
    )]
    NotFirst {
        /// The stage that is to be frozen.
        stage: String,
        /// A stage before it that trains.
        before: String,
    },
    /// All stages are frozen.
    #[error("freezing all stages would leave nothing to train; leave at least the classifier")]
    NothingTrains,
}

impl From<PartError> for super::TrainError {
    fn from(error: PartError) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<PartError> for crate::ExecutorError {
    fn from(error: PartError) -> Self {
        Self::Device(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{BlockSpec, Ratio, Spec, StemKind};

    /// Two blocks after the ImageNet stem.
    fn plan() -> Plan {
        let block = BlockSpec {
            layers: 2,
            growth: 3,
        };
        let spec = Spec {
            blocks: vec![block; 2],
            theta: Ratio::ONE,
            bottleneck: Some(2),
            stem: StemKind::ImageNet,
            init: 6,
            input: [3, 32, 32],
            classes: 10,
            dropout: 0.0,
        };
        spec.plan().unwrap()
    }

    fn frozen(parts: &[&str]) -> Result<usize, PartError> {
        let parts = parts.iter().copied();
        Freeze::parts(parts).of(&plan()).map(Frozen::stages)
    }

    #[test]
    fn the_first_stages_are_frozen_by_their_names() {
        assert_eq!(frozen(&[]), Ok(0));
        assert_eq!(frozen(&["features.conv0", "norm0"]), Ok(1));
        assert_eq!(frozen(&["conv0", "norm0", "denseblock1"]), Ok(2));
        assert_eq!(frozen(&["features"]), Ok(5));
        let until = |name: &str| Freeze::until(name).of(&plan()).map(Frozen::stages);
        assert_eq!(until("features.conv0"), Ok(0));
        assert_eq!(until("denseblock2"), Ok(3));
        assert_eq!(until("norm5"), Ok(4));
        assert_eq!(until("classifier"), Ok(5));
        assert!(matches!(
            until("denseblock2.denselayer1"),
            Err(PartError::NoStage { .. })
        ));
    }

    #[test]
    fn what_cannot_be_frozen_is_refused_with_what_to_do() {
        for (parts, words) in [
            (
                &["denseblock1"][..],
                ["features.conv0 before it", "share of 0"],
            ),
            (&["conv0"][..], ["partly frozen", "features.norm0"]),
            (
                &["conv0", "norm0", "denseblock1.denselayer1"][..],
                ["partly frozen", "share of 0"],
            ),
            (
                &["features", "classifier"][..],
                ["would leave nothing to train", "classifier"],
            ),
            (
                &["denseblok1"][..],
                ["did you mean `features.denseblock1`", "features.norm5"],
            ),
            (
                &["clasifier"][..],
                ["did you mean `classifier`", "features.transition1"],
            ),
        ] {
            let error = frozen(parts).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{parts:?}: {error}");
            }
        }
    }

    #[test]
    fn what_trains_begins_where_what_is_frozen_ends() {
        let plan = plan();
        let stages = plan.stages();
        let parameters = plan.parameters();
        for count in 0..stages.len() {
            let [own, statistics] = plan.trainable(Frozen::first(count));
            let first_of = |is_trainable: bool| {
                let later = parameters.iter().filter(|tensor| {
                    let is_later = |stage: &String| is_within(&tensor.torchvision, stage);
                    let of_stem = is_within(&tensor.torchvision, "features.norm0") && count == 0;
                    tensor.role.is_trainable() == is_trainable
                        && (stages[count..].iter().any(is_later) || of_stem)
                });
                later.map(|tensor| tensor.offset).min()
            };
            assert_eq!(Some(own.start), first_of(true), "{count} stages");
            let all = plan.running_count();
            assert_eq!(
                statistics.start,
                first_of(false).unwrap_or(all),
                "{count} stages"
            );
            assert_eq!([own.end, statistics.end], [plan.parameter_count(), all]);
        }
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
        ];
        let groups = groups(&plan, &rates, true).unwrap();
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
                name if name.starts_with("features.denseblock1.denselayer2.") => 0.5,
                name if name.starts_with("classifier.") => 1.0,
                _ => 0.1,
            };
            let is_matrix = tensor.shape.len() > 1;
            let decay = if is_matrix { 1.0 } else { 0.0 };
            assert_eq!((own.rate, own.decay), (rate, decay), "{name}");
        }
        let alike = super::groups(&plan, &[], false).unwrap();
        assert_eq!(alike, [Group::all(plan.parameter_count())]);
    }
}

//! Parts of a network by name: their learning rates, and which of them are frozen.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::plan::{Frozen, Parameter, Plan, Role};

/// A part of a network, and its share of the learning rate.
///
/// Parts are named as the tensors of torchvision's checkpoints begin: `features.conv0`,
/// `features.denseblock3`, `features.denseblock3.denselayer2`, `features` (all but the classifier) or
/// `classifier`. `features.` in front may be left out. `norms` are all BNs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartRate {
    /// The part's name. If a tensor belongs to several parts, the longest name counts, and `norms`
    /// before all others.
    pub part: String,
    /// Its share of the learning rate, 0 or more.
    pub rate: f32,
}

impl fmt::Display for PartRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.part, self.rate)
    }
}

/// The frozen parts of a network. A frozen part has no gradient, and its BNs normalise with their
/// running statistics and do not change them; no dropout follows its convolutions.
///
/// The first whole stages that are frozen ([`of`](Self::of)) also keep nothing for a backward pass.
/// Other frozen parts save the computation of their weights' gradients; gradients still flow through
/// them to what trains before ([`Group::frozen`](field@crate::Group::frozen)).
///
/// ```
/// use densenet_runtime::train::{Config, Freeze};
///
/// // The classifier alone trains.
/// let head = Config { freeze: Freeze::parts(["features"]), ..Config::imagenet() };
/// // The last block and what follows it.
/// let end = Config { freeze: Freeze::until("denseblock4"), ..Config::imagenet() };
/// // All but the BNs, which keep the statistics that they have: usual for small batches.
/// let convolutions = Config { freeze: Freeze::parts(["norms"]), ..Config::imagenet() };
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Freeze {
    /// Nothing.
    #[default]
    Nothing,
    /// What is before this part.
    Until(String),
    /// These parts. They are named as in [`PartRate`].
    Parts(Vec<String>),
}

impl Freeze {
    /// What is before a part, such as `denseblock4`.
    pub fn until(part: impl Into<String>) -> Self {
        Self::Until(part.into())
    }

    /// These parts.
    pub fn parts<S: Into<String>>(parts: impl IntoIterator<Item = S>) -> Self {
        Self::Parts(parts.into_iter().map(Into::into).collect())
    }

    /// The first whole stages of a plan that are frozen.
    ///
    /// # Errors
    /// If a name is unknown, if a BN would be frozen in part, or if nothing is left to train.
    pub fn of(&self, plan: &Plan) -> Result<Frozen, PartError> {
        let frozen = self.tensors(plan, &trainable(plan))?;
        let is_whole = |count: &usize| {
            let [own, _] = plan.trainable(Frozen::first(*count));
            frozen
                .iter()
                .all(|(range, is_frozen)| *is_frozen || range.start >= own.start)
        };
        // All but the last stage, since something trains.
        let stages = 1..plan.stages().len();
        Ok(Frozen::first(
            stages.take_while(is_whole).last().unwrap_or(0),
        ))
    }

    /// The ranges of these tensors, which are all that train otherwise, and whether they are frozen.
    pub(super) fn tensors(
        &self,
        plan: &Plan,
        tensors: &[Parameter],
    ) -> Result<Vec<(Range<usize>, bool)>, PartError> {
        let frozen: Vec<bool> = match self {
            Self::Nothing => vec![false; tensors.len()],
            Self::Until(name) => {
                let part = Part::find(plan, name)?;
                let first = tensors.iter().position(|tensor| part.has(tensor));
                let first = first.unwrap_or_default();
                (0..tensors.len()).map(|index| index < first).collect()
            }
            Self::Parts(names) => {
                let parts = names.iter().map(|name| Part::find(plan, name));
                let parts: Vec<Part> = parts.collect::<Result<_, _>>()?;
                let is_frozen = |tensor: &Parameter| parts.iter().any(|part| part.has(tensor));
                tensors.iter().map(is_frozen).collect()
            }
        };
        if frozen.iter().all(|frozen| *frozen) {
            return Err(PartError::NothingTrains);
        }
        // A BN's bias follows its scale.
        for (pair, frozen) in tensors.windows(2).zip(frozen.windows(2)) {
            if pair[0].role == Role::NormScale && frozen[0] != frozen[1] {
                let name = &pair[0].torchvision;
                let norm = name.strip_suffix(".weight").unwrap_or(name).into();
                return Err(PartError::PartOfNorm { norm });
            }
        }
        let ranges = tensors.iter().map(Parameter::range);
        Ok(ranges.zip(frozen).collect())
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Until(part) => write!(f, "what is before {part}"),
            Self::Parts(parts) => f.write_str(&parts.join(" and ")),
        }
    }
}

/// A plan's tensors, running statistics excepted.
pub(super) fn trainable(plan: &Plan) -> Vec<Parameter> {
    let mut tensors = plan.parameters();
    tensors.retain(|tensor| tensor.role.is_trainable());
    tensors
}

/// A part that a network has, by its whole name.
pub(super) struct Part(String);

impl Part {
    /// All BNs.
    const NORMS: &'static str = "norms";

    pub(super) fn find(plan: &Plan, name: &str) -> Result<Self, PartError> {
        if name == Self::NORMS {
            return Ok(Self(name.into()));
        }
        let tensors = trainable(plan);
        let has = |name: &String| tensors.iter().any(|own| is_within(&own.torchvision, name));
        let names = [name.to_string(), format!("features.{name}")];
        if let Some(name) = names.into_iter().find(has) {
            return Ok(Self(name));
        }
        // Stages, their parts, and so on down to the tensors.
        let mut known: Vec<String> = vec!["features".into(), Self::NORMS.into()];
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

    pub(super) fn has(&self, tensor: &Parameter) -> bool {
        if self.0 == Self::NORMS {
            return matches!(tensor.role, Role::NormScale | Role::NormBias);
        }
        is_within(&tensor.torchvision, &self.0)
    }

    /// Of two parts that have a tensor, the one that counts has more.
    pub(super) fn narrowness(&self) -> (bool, usize) {
        (self.0 == Self::NORMS, self.0.len())
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
            ({stages}), the layers in each block, such as features.denseblock1.denselayer1, \
            their tensors, and norms (all BNs)"
    )]
    Unknown {
        /// The name.
        name: String,
        /// The most similar name.
        nearest: String,
        /// The network's stages.
        stages: String,
    },
    /// A BN would be frozen in part.
    #[error(
        "{norm} would be partly frozen, but a BN's weight and bias are frozen together with its \
            running statistics; freeze all of it, or give a part of it a learning-rate share of 0 \
            instead"
    )]
    PartOfNorm {
        /// The BN.
        norm: String,
    },
    /// All parts are frozen.
    #[error("freezing all parts would leave nothing to train; leave at least the classifier")]
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
pub(super) mod tests {
    use super::*;
    use crate::plan::{BlockSpec, Ratio, Spec, StemKind};

    /// Two blocks after the ImageNet stem.
    pub(in crate::train) fn plan() -> Plan {
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
    fn the_first_whole_stages_are_frozen_as_stages() {
        assert_eq!(frozen(&["conv0"]), Ok(0));
        assert_eq!(frozen(&["features.conv0", "norm0"]), Ok(1));
        assert_eq!(frozen(&["conv0", "norm0", "denseblock1"]), Ok(2));
        assert_eq!(
            frozen(&["conv0", "norm0", "denseblock1.denselayer1"]),
            Ok(1)
        );
        assert_eq!(frozen(&["conv0", "norms", "transition1"]), Ok(1));
        assert_eq!(frozen(&["denseblock1", "norms"]), Ok(0));
        assert_eq!(frozen(&["features"]), Ok(5));
        assert_eq!(frozen(&["features", "classifier.bias"]), Ok(5));
        let until = |name: &str| Freeze::until(name).of(&plan()).map(Frozen::stages);
        assert_eq!(until("features.conv0"), Ok(0));
        assert_eq!(until("denseblock2"), Ok(3));
        assert_eq!(until("denseblock2.denselayer1"), Ok(3));
        assert_eq!(until("denseblock2.denselayer2"), Ok(3));
        assert_eq!(until("norm5"), Ok(4));
        assert_eq!(until("classifier"), Ok(5));
    }

    #[test]
    fn what_cannot_be_frozen_is_refused_with_what_to_do() {
        for (parts, words) in [
            (
                &["denseblock1.denselayer1.norm1.weight"][..],
                ["features.denseblock1.denselayer1.norm1 would", "share of 0"],
            ),
            (
                &["conv0", "norm0.bias"][..],
                ["features.norm0 would be partly frozen", "share of 0"],
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
            (&["norm"][..], ["did you mean `norms`", "all BNs"]),
            (
                &["norm0.running_mean"][..],
                ["has no part", "features.norm0"],
            ),
        ] {
            let error = frozen(parts).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{parts:?}: {error}");
            }
        }
        let error = Freeze::until("norm5.bias").of(&plan()).unwrap_err();
        assert!(matches!(error, PartError::PartOfNorm { .. }));
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
}

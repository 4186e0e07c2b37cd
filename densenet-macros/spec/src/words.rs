//! From a plan back to a spec: the words that a person would write for it.

use densenet_plan::{Plan, StemKind};

use crate::ParsedSpec;

/// The most digits of a compression after the point; a spec can have 18.
const DIGITS: u32 = 17;

impl ParsedSpec {
    /// The keys of a spec that gives this plan, in their order, without those that have their
    /// defaults: `blocks: [6, 12]`, `k: 12`, and so on. `None` if there is no such spec: where
    /// transitions keep different shares of their maps, or bottlenecks have different widths.
    ///
    /// ```
    /// use densenet_spec::ParsedSpec;
    ///
    /// let written = "blocks: [6, 12, 24, 16], k: 32, theta: 0.50, bottleneck: 4, init: 64, classes: 18";
    /// let keys = ParsedSpec::parse(written)?.keys().unwrap_or_default();
    /// assert_eq!(
    ///     keys.join(", "),
    ///     "blocks: [6, 12, 24, 16], k: 32, theta: 0.5, bottleneck, classes: 18"
    /// );
    /// # Ok::<(), densenet_spec::SpecErrors>(())
    /// ```
    pub fn keys(&self) -> Option<Vec<String>> {
        let keys = keys(&self.plan, &self.classes)?;
        let again = Self::parse(&keys.join(", ")).ok()?;
        let same = again.plan == self.plan && again.classes == self.classes;
        same.then_some(keys)
    }
}

fn keys(plan: &Plan, names: &[String]) -> Option<Vec<String>> {
    let (stem, blocks) = (plan.stem(), plan.blocks());
    let first = blocks.first()?;
    let layers: Vec<_> = blocks.iter().map(|block| block.layers).collect();
    let mut keys = vec![format!("blocks: {layers:?}")];
    let growth: Vec<_> = blocks.iter().map(|block| block.growth).collect();
    keys.push(match growth.iter().all(|&k| k == first.growth) {
        true => format!("k: {}", first.growth),
        false => format!("k: {growth:?}"),
    });
    let theta = compression(plan)?;
    if theta != "1" {
        keys.push(format!("theta: {theta}"));
    }
    if let Some(maps) = first.bottleneck {
        keys.push(match maps / first.growth {
            4 => "bottleneck".to_string(),
            multiple => format!("bottleneck: {multiple}"),
        });
    }
    let kind = StemKind::for_blocks(blocks.len());
    if stem.kind != kind {
        let name = match stem.kind {
            StemKind::ImageNet => "imagenet",
            StemKind::Cifar => "cifar",
        };
        keys.push(format!("stem: {name}"));
    }
    let is_bc = first.bottleneck.is_some() && theta != "1";
    if stem.maps != stem.kind.default_maps(first.growth, is_bc) {
        keys.push(format!("init: {}", stem.maps));
    }
    let side = stem.kind.default_side();
    let input = [stem.channels, stem.height, stem.width];
    if input != [3, side, side] {
        keys.push(format!("input: {input:?}"));
    }
    if !names.is_empty() {
        keys.push(format!("classes: {names:?}"));
    } else if plan.classes() != stem.kind.default_classes() {
        keys.push(format!("classes: {}", plan.classes()));
    }
    if plan.dropout() > 0.0 {
        keys.push(format!("dropout: {}", plan.dropout()));
    }
    Some(keys)
}

/// The shortest compression that gives each transition its maps.
fn compression(plan: &Plan) -> Option<String> {
    let transitions = plan.transitions();
    for digits in 0..=DIGITS {
        let scale = 10_u128.pow(digits);
        // Each transition needs at least output / input.
        let least = transitions.iter().map(|transition| {
            (transition.output as u128 * scale).div_ceil(transition.input as u128)
        });
        let theta = least.max().unwrap_or(1);
        let fits = transitions.iter().all(|transition| {
            transition.input as u128 * theta / scale == transition.output as u128
        });
        if fits && digits == 0 {
            return Some(theta.to_string());
        } else if fits {
            let width = digits as usize;
            return Some(format!("0.{theta:0width$}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use densenet_plan::{BlockSpec, Ratio};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_words_of_a_plan_give_the_plan(
            layers in prop::collection::vec(1_usize..5, 1..5),
            rates in prop::array::uniform4(1_usize..20),
            is_one_rate in any::<bool>(),
            theta in 1_u64..=1000,
            bottleneck in prop::option::of(1_usize..6),
            is_imagenet in any::<bool>(),
            (init, channels, side) in (20_usize..80, 1_usize..5, 64_usize..80),
            classes in 1_usize..30,
            dropout in prop::sample::select(vec![0.0, 0.2, 1e-7, 0.123_456_789]),
        ) {
            let rate = |index: usize| if is_one_rate { rates[0] } else { rates[index] };
            let spec = densenet_plan::Spec {
                blocks: layers
                    .iter()
                    .enumerate()
                    .map(|(index, &layers)| BlockSpec { layers, growth: rate(index) })
                    .collect(),
                theta: Ratio::new(theta, 1000),
                bottleneck,
                stem: if is_imagenet { StemKind::ImageNet } else { StemKind::Cifar },
                init,
                input: [channels, side, side],
                classes,
                dropout,
            };
            // With a small theta a transition keeps nothing.
            prop_assume!(spec.plan().is_ok());
            let plan = spec.plan().unwrap();
            let spec = ParsedSpec { name: "DenseNet".into(), plan, classes: Vec::new() };
            let keys = spec.keys();
            prop_assert!(keys.is_some(), "{spec:?}");
            // `keys` itself reads them again; that is held here, too.
            let again = ParsedSpec::parse(&keys.unwrap().join(", "));
            prop_assert_eq!(again, Ok(spec));
        }
    }

    #[test]
    fn names_of_classes_are_quoted() {
        let words = r#"blocks: [2, 2], k: 12, classes: ["a \"cat\"", "dög\n"]"#;
        let spec = ParsedSpec::parse(words).unwrap();
        assert_eq!(spec.classes, ["a \"cat\"", "dög\n"]);
        assert_eq!(spec.keys().unwrap().join(", "), words);
    }
}

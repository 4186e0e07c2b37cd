//! The names of a network's tensors in files.
//!
//! Our names are torchvision's current ones. Files may have others: those of older versions of
//! torchvision or of this crate, and those with a prefix that a PyTorch wrapper put before all of
//! them.

use std::collections::HashMap;

use densenet_plan::Plan;

use super::{Misfit, TensorFile};

/// A tensor that every network has; what stands before its name is the prefix.
const FIRST: &str = "features.conv0.weight";
/// PyTorch's counters, which are not part of a network: batches seen, models averaged.
const COUNTERS: [&str; 2] = ["num_batches_tracked", "n_averaged"];
/// The prefix of a checkpoint's momentum.
pub(crate) const MOMENTUM: &str = "momentum.";
/// The prefix of the running statistics of training in a checkpoint with recomputed ones.
pub(crate) const TRAINING: &str = "training.";

/// The file's name for each of a network's tensors, by current name. Names that match no tensor are
/// unexpected.
pub(super) fn sources(
    plan: &Plan,
    file: &TensorFile,
    misfit: &mut Misfit,
) -> HashMap<String, String> {
    let names = file.names();
    let prefix = prefix(&names).to_string();
    let mut sources = HashMap::new();
    for name in names {
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_of_run = [MOMENTUM, TRAINING].iter().any(|own| name.starts_with(own));
        if COUNTERS.contains(&last) || (file.is_checkpoint() && is_of_run) {
            continue;
        }
        let Some(plain) = name.strip_prefix(&prefix) else {
            misfit.unexpected.push(name);
            continue;
        };
        let current = current_name(plan, plain);
        // A current name takes precedence over an old one for the same tensor.
        if current == plain || file.shape(&format!("{prefix}{current}")).is_none() {
            sources.insert(current, name);
        } else {
            misfit.unexpected.push(name);
        }
    }
    sources
}

/// Our names for a tensor: the current one, and that of older files.
pub(super) fn in_our_files(plan: &Plan, name: &str) -> [String; 2] {
    let older = match name.strip_prefix("features.norm5.") {
        Some(tensor) => format!("features.norm{}.{tensor}", plan.blocks().len() + 1),
        None => name.to_string(),
    };
    [name.to_string(), older]
}

/// The prefix of all names: `module.` from `DataParallel` or `AveragedModel`, `_orig_mod.` from
/// `torch.compile`, `model.`, or several of them. It is empty if a file holds two networks.
fn prefix(names: &[String]) -> &str {
    let mut prefixes = names
        .iter()
        .filter_map(|name| name.strip_suffix(FIRST))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'));
    match (prefixes.next(), prefixes.next()) {
        (Some(prefix), None) => prefix,
        _ => "",
    }
}

/// The current name of a tensor. Files from before 2018 have `norm.1` for `norm1`. Our own older
/// ones number the last norm after the blocks, which agrees with torchvision only for four blocks.
fn current_name(plan: &Plan, name: &str) -> String {
    let last = format!("features.norm{}.", plan.blocks().len() + 1);
    if let Some(tensor) = name.strip_prefix(&last) {
        return format!("features.norm5.{tensor}");
    }
    let Some((before, layer)) = name.split_once(".denselayer") else {
        return name.to_string();
    };
    let mut layer = layer.to_string();
    for module in ["norm", "conv"] {
        for index in ["1", "2"] {
            let old = format!(".{module}.{index}.");
            layer = layer.replace(&old, &format!(".{module}{index}."));
        }
    }
    format!("{before}.denselayer{layer}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use densenet_plan::{BlockSpec, Ratio, Spec, StemKind};

    fn plan(blocks: usize) -> Plan {
        let block = BlockSpec {
            layers: 1,
            growth: 2,
        };
        let spec = Spec {
            blocks: vec![block; blocks],
            theta: Ratio::ONE,
            bottleneck: None,
            stem: StemKind::Cifar,
            init: 4,
            input: [1, 64, 64],
            classes: 2,
            dropout: 0.0,
        };
        spec.plan().unwrap()
    }

    #[test]
    fn old_names_are_understood_inside_dense_layers_only() {
        for (name, current) in [
            (
                "features.denseblock1.denselayer12.norm.1.running_mean",
                "features.denseblock1.denselayer12.norm1.running_mean",
            ),
            (
                "features.denseblock4.denselayer2.conv.2.weight",
                "features.denseblock4.denselayer2.conv2.weight",
            ),
            (
                "features.denseblock4.denselayer2.conv2.weight",
                "features.denseblock4.denselayer2.conv2.weight",
            ),
            (
                "features.transition1.norm.weight",
                "features.transition1.norm.weight",
            ),
        ] {
            assert_eq!(current_name(&plan(4), name), current);
        }
    }

    #[test]
    fn the_last_norm_is_the_fifth_however_many_blocks_there_are() {
        for blocks in 1..=6 {
            let plan = plan(blocks);
            let ours = format!("features.norm{}.weight", blocks + 1);
            for name in [ours.as_str(), "features.norm5.weight"] {
                assert_eq!(current_name(&plan, name), "features.norm5.weight");
            }
            let names: Vec<_> = plan
                .parameters()
                .into_iter()
                .map(|p| p.torchvision)
                .collect();
            assert!(names.contains(&"features.norm5.running_var".to_string()));
        }
    }

    #[test]
    fn a_prefix_is_what_stands_in_front_of_the_first_convolution() {
        let of = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            prefix(&names).to_string()
        };
        assert_eq!(of(&["features.conv0.weight", "classifier.bias"]), "");
        assert_eq!(
            of(&["n_averaged", "module.features.conv0.weight"]),
            "module."
        );
        let nested = "module._orig_mod.model.";
        assert_eq!(of(&[&format!("{nested}features.conv0.weight")]), nested);
        let momentum = "momentum.features.conv0.weight";
        assert_eq!(of(&["features.conv0.weight", momentum]), "");
        assert_eq!(
            of(&["a.features.conv0.weight", "b.features.conv0.weight"]),
            ""
        );
        assert_eq!(of(&["my_features.conv0.weight"]), "");
        assert_eq!(of(&[]), "");
    }
}

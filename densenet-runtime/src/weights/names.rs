//! The names of a network's tensors in files.
//!
//! Our names are torchvision's current ones. Files may have others: those of older versions of
//! torchvision or of this crate, those of MONAI and of CheXNet, and any of these with a common
//! prefix. timm and torchxrayvision use torchvision's.

use std::collections::{BTreeSet, HashMap};

use densenet_plan::Plan;

use super::TensorFile;

/// The stem's convolution, which every network has; the text before its name is the prefix.
pub(super) const STEM: &str = "features.conv0.weight";
/// PyTorch's counters, which are not part of a network: batches seen, models averaged.
const COUNTERS: [&str; 2] = ["num_batches_tracked", "n_averaged"];
/// Tensors that libraries keep beside a network's: torchxrayvision's thresholds.
const BESIDE: [&str; 1] = ["op_threshs"];
/// The prefix of a checkpoint's momentum.
pub(crate) const MOMENTUM: &str = "momentum.";
/// The prefix of a checkpoint's second moments.
pub(crate) const SECOND_MOMENT: &str = "second_moment.";
/// The prefix of a checkpoint's average of parameters and running statistics.
pub(crate) const EMA: &str = "ema.";
/// The prefix of parameters and running statistics in training, in a checkpoint that was evaluated
/// with others.
pub(crate) const TRAINING: &str = "training.";

/// The names in a file.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The common prefix of the network's names.
    pub prefix: String,
    /// The file's name of each tensor, by current name.
    pub sources: HashMap<String, String>,
    /// Names that cannot be the network's.
    pub others: Vec<String>,
    /// Names that are known not to be the network's, but do no harm.
    pub beside: Vec<String>,
    /// Number of dense blocks.
    pub blocks: usize,
}

impl Names {
    /// The names in a file. Counters, and what else of a checkpoint belongs to its run, are left out.
    pub fn of(file: &TensorFile) -> Self {
        let all = file.names();
        let prefix = prefix(&all).to_string();
        let mut own = Self::default();
        let mut plain = Vec::new();
        for name in all {
            let last = name.rsplit('.').next().unwrap_or_default();
            let of_run = [MOMENTUM, SECOND_MOMENT, EMA, TRAINING];
            let is_of_run = of_run.iter().any(|run| name.starts_with(run));
            if COUNTERS.contains(&last) || (file.is_checkpoint() && is_of_run) {
                continue;
            }
            match name.strip_prefix(&prefix) {
                Some(rest) if BESIDE.contains(&rest) => own.beside.push(name),
                Some(rest) => plain.push(rest.to_string()),
                None => own.others.push(name),
            }
        }
        let aliases = Aliases::of(&plain);
        for name in plain {
            let current = aliases.current(&name);
            let full = format!("{prefix}{name}");
            // A current name takes precedence over another one for the same tensor.
            if current == name || file.shape(&format!("{prefix}{current}")).is_none() {
                if let Some(other) = own.sources.insert(current, full) {
                    own.others.push(other);
                }
            } else {
                own.others.push(full);
            }
        }
        own.blocks = aliases.blocks;
        own.prefix = prefix;
        own
    }
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
/// `torch.compile`, `model.`, `module.densenet121.` from CheXNet, or another. It is empty if a file
/// holds two networks.
fn prefix(names: &[String]) -> &str {
    let mut prefixes = names
        .iter()
        .filter_map(|name| name.strip_suffix(STEM))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'));
    match (prefixes.next(), prefixes.next()) {
        (Some(prefix), None) => prefix,
        _ => "",
    }
}

/// What names of a file are other names for.
struct Aliases {
    blocks: usize,
    /// What the classifier is called, up to the tensor.
    classifiers: Vec<String>,
}

impl Aliases {
    fn of(names: &[String]) -> Self {
        let block = |name: &String| -> Option<usize> {
            let rest = name.strip_prefix("features.denseblock")?;
            rest.split('.').next()?.parse().ok()
        };
        // MONAI's, and a linear layer among others without parameters, as CheXNet's.
        let mut classifiers = vec!["class_layers.out.".to_string()];
        let index = |name: &String| -> Option<usize> {
            let rest = name.strip_prefix("classifier.")?;
            rest.split('.').next()?.parse().ok()
        };
        let indices: BTreeSet<_> = names.iter().filter_map(index).collect();
        if let (Some(index), 1) = (indices.first(), indices.len()) {
            classifiers.push(format!("classifier.{index}."));
        }
        Self {
            blocks: names.iter().filter_map(block).max().unwrap_or(0),
            classifiers,
        }
    }

    /// The current name of a tensor. Files of torchvision from before 2018 have `norm.1` for `norm1`,
    /// MONAI has `layers.norm1`. Our own older ones number the last norm after the blocks, which
    /// agrees with torchvision only for four blocks.
    fn current(&self, name: &str) -> String {
        let last = format!("features.norm{}.", self.blocks.saturating_add(1));
        if let Some(tensor) = name.strip_prefix(&last) {
            return format!("features.norm5.{tensor}");
        }
        for classifier in &self.classifiers {
            if let Some(tensor) = name.strip_prefix(classifier) {
                return format!("classifier.{tensor}");
            }
        }
        let Some((before, layer)) = name.split_once(".denselayer") else {
            return name.to_string();
        };
        let mut layer = layer.replacen(".layers.", ".", 1);
        for module in ["norm", "conv"] {
            for index in ["1", "2"] {
                let old = format!(".{module}.{index}.");
                layer = layer.replace(&old, &format!(".{module}{index}."));
            }
        }
        format!("{before}.denselayer{layer}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use densenet_plan::{BlockSpec, Ratio, Spec, StemKind};

    fn aliases(names: &[&str]) -> Aliases {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        Aliases::of(&names)
    }

    fn of_blocks(blocks: usize) -> Aliases {
        aliases(&[&format!(
            "features.denseblock{blocks}.denselayer1.norm1.weight"
        )])
    }

    #[test]
    fn other_names_of_layers_are_understood_inside_dense_layers_only() {
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
                "features.denseblock4.denselayer2.layers.conv2.weight",
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
            assert_eq!(of_blocks(4).current(name), current);
        }
    }

    #[test]
    fn a_classifier_is_one_linear_layer_under_any_of_its_names() {
        let plain = aliases(&["classifier.weight"]);
        assert_eq!(plain.current("class_layers.out.bias"), "classifier.bias");
        assert_eq!(plain.current("classifier.weight"), "classifier.weight");
        let last = aliases(&["classifier.1.weight", "classifier.1.bias"]);
        assert_eq!(last.current("classifier.1.bias"), "classifier.bias");
        let two = aliases(&["classifier.0.weight", "classifier.2.weight"]);
        assert_eq!(two.current("classifier.2.weight"), "classifier.2.weight");
    }

    #[test]
    fn the_last_norm_is_the_fifth_however_many_blocks_there_are() {
        for blocks in 1..=6 {
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
            let plan = spec.plan().unwrap();
            let ours = format!("features.norm{}.weight", blocks + 1);
            for name in [ours.as_str(), "features.norm5.weight"] {
                assert_eq!(of_blocks(blocks).current(name), "features.norm5.weight");
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

//! The presets by name, for programs that choose a network at run time.

use std::fmt;

use densenet_runtime::Network;
use densenet_runtime::plan::Plan;

use crate::{cifar, dropout, imagenet};

/// A network of the paper and its name on command lines.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Such as `densenet201`, or `cifar_bc_100_12`: CIFAR, DenseNet-BC, L = 100, k = 12;
    /// `cifar_bc_100_12_dropout` is the same for images that are not augmented.
    pub name: &'static str,
    /// The name of its type.
    pub network: &'static str,
    plan: fn() -> Plan,
}

impl Preset {
    /// Its shapes.
    pub fn plan(&self) -> Plan {
        (self.plan)()
    }
}

macro_rules! presets {
    ($($name:literal => $module:ident::$network:ident,)*) => {
        /// All presets.
        pub const PRESETS: &[Preset] = &[$(
            Preset {
                name: $name,
                network: <$module::$network as Network>::NAME,
                plan: || <$module::$network as Network>::PLAN,
            },
        )*];
    };
}

presets! {
    "densenet121" => imagenet::DenseNet121,
    "densenet161" => imagenet::DenseNet161,
    "densenet169" => imagenet::DenseNet169,
    "densenet201" => imagenet::DenseNet201,
    "densenet264" => imagenet::DenseNet264,
    "cifar_40_12" => cifar::DenseNet40K12,
    "cifar_100_12" => cifar::DenseNet100K12,
    "cifar_100_24" => cifar::DenseNet100K24,
    "cifar_bc_100_12" => cifar::DenseNetBC100K12,
    "cifar_bc_250_24" => cifar::DenseNetBC250K24,
    "cifar_bc_190_40" => cifar::DenseNetBC190K40,
    "cifar100_40_12" => cifar::DenseNet40K12C100,
    "cifar100_100_12" => cifar::DenseNet100K12C100,
    "cifar100_100_24" => cifar::DenseNet100K24C100,
    "cifar100_bc_100_12" => cifar::DenseNetBC100K12C100,
    "cifar100_bc_250_24" => cifar::DenseNetBC250K24C100,
    "cifar100_bc_190_40" => cifar::DenseNetBC190K40C100,
    "cifar_40_12_dropout" => dropout::DenseNet40K12Dropout,
    "cifar_100_12_dropout" => dropout::DenseNet100K12Dropout,
    "cifar_100_24_dropout" => dropout::DenseNet100K24Dropout,
    "cifar_bc_100_12_dropout" => dropout::DenseNetBC100K12Dropout,
    "cifar_bc_250_24_dropout" => dropout::DenseNetBC250K24Dropout,
    "cifar100_40_12_dropout" => dropout::DenseNet40K12C100Dropout,
    "cifar100_100_12_dropout" => dropout::DenseNet100K12C100Dropout,
    "cifar100_100_24_dropout" => dropout::DenseNet100K24C100Dropout,
    "cifar100_bc_100_12_dropout" => dropout::DenseNetBC100K12C100Dropout,
    "cifar100_bc_250_24_dropout" => dropout::DenseNetBC250K24C100Dropout,
}

/// There is no preset with this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPreset(pub String);

impl fmt::Display for UnknownPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
        write!(
            f,
            "unknown preset {:?}; choose one of {}",
            self.0,
            names.join(", ")
        )
    }
}

impl std::error::Error for UnknownPreset {}

/// The preset of this name.
///
/// # Errors
/// If there is no such preset. The error lists all names.
pub fn preset(name: &str) -> Result<&'static Preset, UnknownPreset> {
    let found = PRESETS.iter().find(|preset| preset.name == name);
    found.ok_or_else(|| UnknownPreset(name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{PRESETS, preset};

    #[test]
    fn each_preset_has_a_name_and_a_plan_of_its_own() {
        for one in PRESETS {
            assert_eq!(preset(one.name).map(|found| found.network), Ok(one.network));
            let alike = PRESETS.iter().filter(|other| other.plan() == one.plan());
            assert_eq!(alike.count(), 1, "{}", one.name);
        }
        let message = preset("densenet122").err().map(|error| error.to_string());
        let start = "unknown preset \"densenet122\"; choose one of densenet121, densenet161, ";
        assert!(message.is_some_and(|message| message.starts_with(start)));
    }
}

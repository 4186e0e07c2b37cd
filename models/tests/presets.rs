//! The presets are the paper's networks: their counts are the paper's, exactly, and their
//! architecture is shown as a table, and new ones start as the paper says.

use densenet_models::*;
use densenet_runtime::Network;
use densenet_runtime::dfdx::prelude::*;
use densenet_runtime::plan::{Plan, Recompute};

/// The constants of the types.
struct Figures {
    name: &'static str,
    plan: Plan,
    parameters: usize,
    multiply_adds: u64,
    layers: usize,
    training_bytes: fn(usize, Recompute) -> u64,
}

macro_rules! presets {
    ($($name:ident),* $(,)?) => {
        [$(Figures {
            name: <$name as Network>::NAME,
            plan: <$name as Network>::PLAN,
            parameters: $name::PARAMETERS,
            multiply_adds: $name::MULTIPLY_ADDS,
            layers: $name::LAYERS,
            training_bytes: $name::training_bytes,
        }),*]
    };
}

fn imagenet() -> [Figures; 5] {
    presets![
        DenseNet121,
        DenseNet161,
        DenseNet169,
        DenseNet201,
        DenseNet264
    ]
}

fn ten_classes() -> [Figures; 6] {
    presets![
        DenseNet40K12,
        DenseNet100K12,
        DenseNet100K24,
        DenseNetBC100K12,
        DenseNetBC190K40,
        DenseNetBC250K24,
    ]
}

fn hundred_classes() -> [Figures; 6] {
    presets![
        DenseNet40K12C100,
        DenseNet100K12C100,
        DenseNet100K24C100,
        DenseNetBC100K12C100,
        DenseNetBC190K40C100,
        DenseNetBC250K24C100,
    ]
}

/// For images that are not augmented.
fn with_dropout() -> [Figures; 10] {
    presets![
        DenseNet40K12Dropout,
        DenseNet100K12Dropout,
        DenseNet100K24Dropout,
        DenseNetBC100K12Dropout,
        DenseNetBC250K24Dropout,
        DenseNet40K12C100Dropout,
        DenseNet100K12C100Dropout,
        DenseNet100K24C100Dropout,
        DenseNetBC100K12C100Dropout,
        DenseNetBC250K24C100Dropout,
    ]
}

/// All networks except those that differ only in dropout.
fn all() -> impl Iterator<Item = Figures> {
    imagenet()
        .into_iter()
        .chain(ten_classes())
        .chain(hundred_classes())
}

#[test]
fn parameters_are_the_papers() {
    let found: Vec<_> = imagenet()
        .into_iter()
        .chain(ten_classes())
        .map(|p| (p.name, p.parameters))
        .collect();
    assert_eq!(
        found,
        [
            ("DenseNet121", 7_978_856),
            ("DenseNet161", 28_681_000),
            ("DenseNet169", 14_149_480),
            ("DenseNet201", 20_013_928),
            ("DenseNet264", 33_337_704),
            ("DenseNet40K12", 1_019_722),
            ("DenseNet100K12", 6_979_642),
            ("DenseNet100K24", 27_249_082),
            ("DenseNetBC100K12", 769_162),
            ("DenseNetBC190K40", 25_624_430),
            ("DenseNetBC250K24", 15_324_406),
        ]
    );
}

#[test]
fn ninety_more_classes_are_ninety_more_rows_of_the_classifier() {
    for (ten, hundred) in ten_classes().into_iter().zip(hundred_classes()) {
        assert_eq!(hundred.name, format!("{}C100", ten.name));
        let row = ten.plan.features() + 1;
        assert_eq!(
            hundred.parameters - ten.parameters,
            90 * row,
            "{}",
            ten.name
        );
    }
}

#[test]
fn networks_with_dropout_are_those_without_it() {
    for dropout in with_dropout() {
        let same = all().find(|other| format!("{}Dropout", other.name) == dropout.name);
        let plan = same.unwrap().plan.with_dropout(0.2).unwrap();
        assert_eq!(dropout.plan, plan, "{}", dropout.name);
    }
    assert!(all().all(|preset| preset.plan.dropout() == 0.0));
}

#[test]
fn multiply_adds_on_imagenet_are_the_papers() {
    let found = imagenet().map(|p| (p.name, format!("{:.3}", p.multiply_adds as f64 / 1e9)));
    let expected = [
        ("DenseNet121", "2.834"),
        ("DenseNet161", "7.728"),
        ("DenseNet169", "3.360"),
        ("DenseNet201", "4.291"),
        ("DenseNet264", "5.752"),
    ];
    assert_eq!(
        found,
        expected.map(|(name, gigas)| (name, gigas.to_owned()))
    );
}

#[test]
fn a_name_is_the_depth_and_the_growth_rate() {
    for preset in all() {
        let depth: String = preset
            .name
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        // The paper's name for the blocks 6, 12, 64, 48 is one less than they count.
        let layers = preset.layers - usize::from(preset.name == "DenseNet264");
        assert_eq!(depth, layers.to_string(), "{}", preset.name);
        if let Some((_, rest)) = preset.name.split_once('K') {
            let rate = rest.split('C').next();
            assert_eq!(
                rate,
                Some(preset.plan.blocks()[0].growth.to_string().as_str()),
                "{}",
                preset.name
            );
        }
    }
}

#[test]
fn constants_are_the_plans() {
    for preset in all() {
        let Figures { name, plan, .. } = &preset;
        assert_eq!(preset.parameters, plan.parameter_count(), "{name}");
        assert_eq!(preset.multiply_adds, plan.multiply_adds(), "{name}");
        assert_eq!(preset.layers, plan.depth(), "{name}");
        for recompute in [Recompute::Nothing, Recompute::Bottlenecks] {
            let bytes = plan.training_footprint(recompute).bytes(64);
            assert_eq!((preset.training_bytes)(64, recompute), bytes, "{name}");
        }
    }
}

#[test]
fn every_network_has_a_name_for_command_lines() {
    let mut listed: Vec<_> = PRESETS.iter().map(|preset| preset.network).collect();
    let mut networks: Vec<_> = all()
        .chain(with_dropout())
        .map(|figures| figures.name)
        .collect();
    listed.sort_unstable();
    networks.sort_unstable();
    assert_eq!(listed, networks);
}

#[test]
fn the_plan_of_each_preset_is_as_shown() {
    for preset in all() {
        let figures = format!(
            "{}\nparameters: {}\nmultiply-adds: {}\nlayers: {}\nbytes of a training step with batch 64: {}, or {} with recompute",
            preset.plan,
            preset.parameters,
            preset.multiply_adds,
            preset.layers,
            (preset.training_bytes)(64, Recompute::Nothing),
            (preset.training_bytes)(64, Recompute::Bottlenecks),
        );
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(preset.name, figures);
        });
    }
}

#[test]
fn dfdx_counts_the_papers_parameters() {
    let network = Cpu::default().build_module::<DenseNet40K12, f32>();
    assert_eq!(network.num_trainable_params(), DenseNet40K12::PARAMETERS);
}

#[test]
fn a_new_network_starts_as_the_paper_says() {
    let network = Cpu::default().build_module::<DenseNet40K12, f32>();
    let norm = &network.block1.layer1.norm;
    assert!(norm.scale.as_vec().iter().all(|&scale| scale == 1.0));
    assert!(norm.bias.as_vec().iter().all(|&bias| bias == 0.0));
    assert!(
        network
            .classifier
            .bias
            .as_vec()
            .iter()
            .all(|&bias| bias == 0.0)
    );

    // He: variance 2 / fan-in. From 47,088 weights its estimate is within 3%, except once in 10,000.
    let weights = network.block3.layer12.conv.weight.as_vec();
    let mean = |values: &mut dyn Iterator<Item = f32>| values.sum::<f32>() / weights.len() as f32;
    let average = mean(&mut weights.iter().copied());
    let variance = mean(&mut weights.iter().map(|w| (w - average).powi(2)));
    let expected = 2.0 / (436.0 * 9.0);
    assert!(average.abs() < 1e-3, "{average}");
    assert!(
        (variance / expected - 1.0).abs() < 0.03,
        "{variance} instead of {expected}"
    );
}

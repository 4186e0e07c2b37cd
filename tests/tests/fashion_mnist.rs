//! A small DenseNet-BC learns to tell clothes apart: under 15% error on Fashion-MNIST's test set,
//! in f32 and in bf16.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use densenet_runtime::cpu::Precision;
use densenet_runtime::data::{Dataset, Loader, idx};
use densenet_runtime::densenet;
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::train::{Config, Ending, Fit, ProgressBar, Schedule, Trainer};

densenet! {
    /// 22 layers.
    Clothes { blocks: [3, 3, 3], k: 8, theta: 0.5, bottleneck, input: [1, 28, 28] }
}

/// Where Debian's package puts the files.
const FOLDER: &str = "/usr/share/datasets/fashion-mnist";

/// The environment variable that names another folder of them.
const VARIABLE: &str = "FASHION_MNIST";

/// Images to train on, once each; all 60,000 take longer and give a lower error.
const IMAGES: usize = 32_000;

#[test]
fn a_small_network_has_less_than_15_percent_error_on_fashion_mnist() {
    let [f32, bf16] = [Precision::F32, Precision::Bf16].map(error_after_training);
    assert!(f32 < 0.15 && bf16 < 0.15, "{f32} in f32, {bf16} in bf16");
    // Runs that differ in their seed alone are as far apart.
    assert!((f32 - bf16).abs() < 0.01, "{f32} in f32, {bf16} in bf16");
}

/// The folder of the four IDX files.
fn folder(variable: Option<OsString>, default: &str) -> Result<PathBuf, String> {
    let folder = variable.map_or_else(|| default.into(), PathBuf::from);
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(format!(
        "{} is missing: this test reads Fashion-MNIST. Install Debian's package with `apt-get install \
         dataset-fashion-mnist`, or set {VARIABLE} to the folder of its four IDX files",
        folder.display()
    ))
}

#[test]
fn where_the_data_is_missing_the_package_and_the_variable_are_named() {
    let here = std::env::current_dir().unwrap();
    assert_eq!(folder(Some(here.clone().into()), "nowhere"), Ok(here));
    for missing in [folder(None, "nowhere"), folder(Some("nowhere".into()), "/")] {
        let message = missing.unwrap_err();
        for word in [
            "nowhere is missing",
            "dataset-fashion-mnist",
            "FASHION_MNIST",
        ] {
            assert!(message.contains(word), "{message}");
        }
    }
}

/// The top-1 error on the test set.
fn error_after_training(precision: Precision) -> f64 {
    let folder =
        folder(std::env::var_os(VARIABLE), FOLDER).unwrap_or_else(|missing| panic!("{missing}"));
    let (train, test) = idx::train_and_test(folder, &idx::FASHION).unwrap();
    let (train, _) = train.split(IMAGES);
    assert_eq!((train.len(), test.len()), (IMAGES, 10_000));
    let config = Config {
        epochs: 1,
        batch: 32,
        schedule: Schedule::cosine(0.1, 0.1),
        precision,
        ..Config::cifar()
    };
    let train = Loader::training(Arc::new(train), config.batch).unwrap();
    let test = Loader::evaluation(Arc::new(test), config.batch).unwrap();
    let model = Cpu::seed_from_u64(1).build_module::<Clothes, f32>();
    let mut trainer = Trainer::new(model, config).unwrap();

    let mut progress = ProgressBar::new();
    let summary = trainer
        .fit(&train, &test, &Fit::default(), &mut progress)
        .unwrap();

    assert_eq!(summary.ending, Ending::Finished);
    let evaluation = summary.evaluation.unwrap();
    assert_eq!(evaluation.images, 10_000);
    // Clothes are not told apart by accident: most of the rest is among the five best.
    assert!(evaluation.top5_error() < 0.01, "{evaluation:?}");
    evaluation.top1_error()
}

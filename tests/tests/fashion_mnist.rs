//! A small DenseNet-BC learns to distinguish clothes: under 15% error on Fashion-MNIST's test set,
//! in f32 and in bf16, from the training set if it is installed, or from the part of it that is
//! kept here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use densenet_runtime::data::{Dataset, InMemory, Loader, idx};
use densenet_runtime::densenet;
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::plan::Precision;
use densenet_runtime::train::{Config, Ending, Fit, ProgressBar, Schedule, Trainer};

densenet! {
    /// 22 layers.
    Clothes { blocks: [3, 3, 3], k: 8, theta: 0.5, bottleneck, input: [1, 28, 28] }
}

/// The environment variable that names a folder of the four IDX files.
const VARIABLE: &str = "FASHION_MNIST";

/// The folder of Debian's package `dataset-fashion-mnist`.
const PACKAGE: &str = "/usr/share/datasets/fashion-mnist";

/// The part that is kept here: 6,000 of the training images.
const PART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/fashion-mnist");

/// Images of the whole set to train on, once each; all 60,000 take longer and give a lower error.
const IMAGES: usize = 32_000;

#[test]
fn a_small_network_has_less_than_15_percent_error_on_fashion_mnist() {
    let folder = folder(std::env::var_os(VARIABLE), PACKAGE);
    let (train, test) = idx::train_and_test(&folder, &idx::FASHION).unwrap();
    // The part is seen five times.
    let epochs = if train.len() < IMAGES { 5 } else { 1 };
    let (train, _) = train.split(IMAGES);
    assert_eq!(test.len(), 10_000, "{}", folder.display());
    let error = |precision| error_after_training(train.clone(), test.clone(), epochs, precision);
    let [f32, bf16] = [Precision::F32, Precision::Bf16].map(error);
    assert!(f32 < 0.15 && bf16 < 0.15, "{f32} in f32, {bf16} in bf16");
    // Runs that differ only in their seed are as far apart.
    assert!((f32 - bf16).abs() < 0.01, "{f32} in f32, {bf16} in bf16");
}

/// The folder that is named, or else the package's, or else the part.
fn folder(variable: Option<OsString>, package: &str) -> PathBuf {
    match variable {
        Some(named) => named.into(),
        None if Path::new(package).is_dir() => package.into(),
        None => PART.into(),
    }
}

#[test]
fn without_the_whole_set_the_part_is_used() {
    let here = std::env::current_dir().unwrap();
    let missing = "/nowhere/fashion-mnist";
    assert_eq!(folder(Some(here.clone().into()), missing), here);
    assert_eq!(folder(None, &here.to_string_lossy()), here);
    let part = folder(None, missing);
    let (train, test) = idx::train_and_test(part, &idx::FASHION).unwrap();
    assert_eq!((train.len(), test.len()), (6_000, 10_000));
}

/// The top-1 error on the test set.
fn error_after_training(train: InMemory, test: InMemory, epochs: u32, precision: Precision) -> f64 {
    let config = Config {
        epochs,
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
    // Clothes are not distinguished by accident: most of the rest is among the five best.
    assert!(evaluation.top5_error() < 0.01, "{evaluation:?}");
    evaluation.top1_error()
}

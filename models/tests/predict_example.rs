//! The example that names what is in a picture, against an evaluation of the same picture.

mod support;

use std::fs;
use std::path::Path;
use std::process::Output;

use densenet_models::DenseNet121;
use densenet_runtime::cpu::{CpuExecutor, CpuOptions};
use densenet_runtime::data::{Dataset, ImageFolder};
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::weights::State;
use densenet_runtime::{Arena, Batch, Executor, Network, Pixels};
use drawn_pictures::PictureSet;
use tempfile::TempDir;

/// Runs the example in a folder.
fn predict(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = support::command("predict", folder, arguments);
    command.output().unwrap()
}

/// What it printed: the lines of each picture.
fn said(output: Output) -> Vec<String> {
    let [said, _] = support::said(output);
    said.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn it_names_the_five_classes_that_validation_finds_likeliest() {
    let folder = TempDir::new().unwrap();
    let set = PictureSet {
        size: 300,
        train: 1,
        val: 1,
        ..PictureSet::default()
    };
    drawn_pictures::make(folder.path().join("data"), &set).unwrap();
    let images = ImageFolder::open(folder.path().join("data/val"), [224, 224]).unwrap();
    let model = Cpu::seed_from_u64(3).build_module::<DenseNet121, f32>();
    let state = State::of(&model);
    let weights = folder.path().join("weights.safetensors");
    state.write(&DenseNet121::PLAN, &weights).unwrap();

    // As validation does it.
    let mut bytes = vec![0; 3 * 224 * 224];
    images.load(0, None, &mut bytes).unwrap();
    let label = images.target(0).class().unwrap();
    let mut executor = CpuExecutor::new(DenseNet121::PLAN, CpuOptions::for_batch(1)).unwrap();
    executor
        .write(Arena::Parameters, &state.parameters)
        .unwrap();
    executor.write(Arena::Running, &state.running).unwrap();
    let normalization = images.normalization();
    let pixels = Pixels::Nhwc {
        bytes: &bytes,
        mean: &normalization.mean,
        std: &normalization.std,
    };
    let labels = [label];
    executor
        .evaluate(Batch::of_classes(pixels, &labels))
        .unwrap();
    let mut logits = vec![0.0; 1000];
    executor.logits(&mut logits).unwrap();
    let expected = |classes: usize| -> Vec<(usize, f64)> {
        let powers: Vec<f64> = logits[..classes]
            .iter()
            .map(|&z| f64::from(z).exp())
            .collect();
        let sum: f64 = powers.iter().sum();
        let mut all: Vec<_> = powers.iter().map(|p| 100.0 * p / sum).enumerate().collect();
        all.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        all.truncate(5);
        all
    };
    let check = |lines: &[String], expected: &[(usize, f64)], name: &dyn Fn(usize) -> String| {
        assert_eq!(lines.len(), 5, "{lines:?}");
        for (line, &(class, percent)) in lines.iter().zip(expected) {
            let (found, found_name) = line.trim().split_once("%  ").unwrap();
            assert_eq!(found_name, name(class));
            let found: f64 = found.parse().unwrap();
            assert!((found - percent).abs() < 0.02, "{line}: {percent}");
        }
    };

    let picture = images.path(0).unwrap();
    let picture = picture.to_str().unwrap();
    let common = ["--model", "densenet121", "--weights", "weights.safetensors"];
    let lines = said(predict(folder.path(), &[&common[..], &[picture]].concat()));
    assert_eq!(lines[0], picture);
    check(&lines[1..], &expected(1000), &|class| {
        format!("class {class}")
    });

    // With names: of a network with more classes than the data, those that the data has.
    let names: String = (0..20).map(|class| format!("name {class}\n")).collect();
    fs::write(folder.path().join("names.txt"), names).unwrap();
    let more = ["--classes", "names.txt", picture];
    let lines = said(predict(folder.path(), &[&common[..], &more].concat()));
    check(&lines[1..], &expected(20), &|class| format!("name {class}"));
}

#[test]
fn what_it_cannot_read_is_named() {
    let folder = TempDir::new().unwrap();
    let refusal = |arguments: &[&str]| support::refusal(&predict(folder.path(), arguments));
    let message = refusal(&["--weights", "nowhere.safetensors", "cat.jpg"]);
    assert!(
        message.starts_with("error: cannot read nowhere.safetensors"),
        "{message}"
    );
    let message = refusal(&["--model", "cifar_40_12", "--weights", "w", "cat.jpg"]);
    assert!(
        message.contains("there are densenet121, densenet161"),
        "{message}"
    );
}

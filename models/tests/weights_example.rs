//! An example that starts from a file of weights, with their notes.

mod support;

use densenet_runtime::data::Normalization;
use densenet_runtime::weights::{Notes, State, TensorFile};
use tempfile::TempDir;

#[test]
fn images_are_normalised_as_the_weights_were_trained_and_a_difference_is_said() {
    let folder = TempDir::new().unwrap();
    support::fashion(&folder.path().join("data"), 20);
    // The example's network.
    let words = "blocks: [3, 3, 3], k: 8, theta: 0.5, bottleneck, input: [1, 28, 28]";
    let plan = densenet_spec::ParsedSpec::parse(words).unwrap().plan;
    let normalization = Normalization {
        mean: vec![0.25],
        std: vec![0.5],
    };
    let notes = Notes {
        normalization: Some(normalization.clone()),
        ..Notes::default()
    };
    let weights = folder.path().join("weights.safetensors");
    State::initial(&plan, 3)
        .write_with(&plan, weights, &notes)
        .unwrap();
    let common = ["--data", "data", "--batch-size", "10", "--out", "run"];
    let run = |more: &[&str]| {
        let arguments = [&common[..], more].concat();
        let mut command = support::command("fashion_mnist", folder.path(), &arguments);
        support::said(command.output().unwrap())
    };
    let checkpoint = "run/checkpoint.safetensors";
    for start in [
        ["--weights", "weights.safetensors", "--steps", "1"],
        ["--resume", checkpoint, "--steps", "2"],
    ] {
        let [_, errors] = run(&start);
        let words = format!(
            "images are normalised as the weights were trained: {} has mean 0.25 and std 0.5, but the data has",
            start[1]
        );
        assert!(errors.contains(&words), "{errors}");
        let file = TensorFile::read(folder.path().join(checkpoint)).unwrap();
        let noted = Notes::of(&file).unwrap().normalization;
        assert_eq!(noted.as_ref(), Some(&normalization));
    }
}

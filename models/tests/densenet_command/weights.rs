//! Files of weights: what a run starts from, what belongs to them, and their conversion.

use densenet_runtime::weights::{State, TensorFile};
use tempfile::TempDir;

use crate::{SPEC, plan_in, refusal, said, train, with_pictures};

#[test]
fn other_classes_need_the_features_only_and_the_message_says_so() {
    let folder = with_pictures();
    let folder = folder.path();
    // Weights of the same layers for five classes.
    let words = format!("{SPEC}, classes: 5");
    let plan = densenet_spec::Spec::parse(&words).unwrap().plan;
    let weights = folder.join("weights.safetensors");
    let state = State::initial(&plan, 3);
    state.write(&plan, &weights).unwrap();
    let arguments = [
        "train",
        "--data",
        "data",
        "--spec",
        SPEC,
        "--batch-size",
        "8",
    ];
    let pretrained = ["--pretrained", "weights.safetensors", "--out", "run"];
    let refused = refusal(folder, &[&arguments[..], &pretrained].concat());
    assert!(refused.contains("--features-only"), "{refused}");
    assert!(!folder.join("run").exists());
    let shown = train(
        folder,
        &[
            &pretrained[..],
            &["--features-only", "--steps", "1", "--lr", "0"],
        ]
        .concat(),
    );
    assert!(shown.contains("classifier.weight"), "{shown}");
    // With a rate of 0 they are as they were.
    let checkpoint = folder.join("run/checkpoint.safetensors");
    let own = State::from_file(
        &plan_in(&checkpoint),
        &TensorFile::read(&checkpoint).unwrap(),
        densenet_runtime::weights::Unexpected::Ignore,
    )
    .unwrap();
    let features = plan.tensors().head.weight.start;
    assert_eq!(own.parameters[..features], state.parameters[..features]);
}

#[test]
fn weights_are_converted_there_and_back() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let plan = densenet_spec::Spec::parse(SPEC).unwrap().plan;
    let state = State::initial(&plan, 3);
    let [first, there, back] = ["a.safetensors", "b.pth", "c.safetensors"];
    state.write(&plan, folder.join(first)).unwrap();
    said(folder, &["convert", first, there]);
    let shown = said(folder, &["convert", there, back]);
    assert!(shown.contains("written to c.safetensors"), "{shown}");
    let read = |name: &str| State::read(&plan_in(&folder.join(name)), folder.join(name)).unwrap();
    assert_eq!(read(there), state);
    assert_eq!(read(back), state);
    let said = refusal(folder, &["convert", first, "d.onnx"]);
    assert!(said.contains("d.onnx"), "{said}");
    let shown = self::said(folder, &["info", there, "--input", "32"]);
    assert!(
        shown.contains("blocks: [1, 1], k: 4, theta: 0.5, bottleneck"),
        "{shown}"
    );
}

//! `densenet predict`.

use std::fs;

use densenet_models::CLOTHES_BC;
use densenet_runtime::data::{Dataset, idx};
use densenet_runtime::weights::{State, TensorFile};
use serde_json::Value;
use tempfile::TempDir;

use crate::{SPEC, densenet, refusal, run, said, support, train, with_pictures};

/// Pictures, and `weights.safetensors` of ten classes without notes.
fn with_weights() -> TempDir {
    let folder = with_pictures();
    let words = format!("{SPEC}, classes: 10");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    let path = folder.path().join("weights.safetensors");
    State::initial(&plan, 3).write(&plan, path).unwrap();
    folder
}

/// Asks about all pictures by these weights.
const ASKED: [&str; 6] = [
    "predict",
    "--weights",
    "weights.safetensors",
    "--input",
    "32",
    "data/val",
];

#[test]
fn a_picture_that_cannot_be_read_is_reported_and_the_others_are_still_asked_about() {
    let folder = with_weights();
    let folder = folder.path();
    fs::write(folder.join("broken.jpg"), b"no picture").unwrap();
    let list = "broken.jpg\n";
    fs::write(folder.join("list.txt"), list).unwrap();
    let more = ["--format", "csv", "--list", "list.txt"];
    let output = run(folder, &[&ASKED[..], &more].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("broken.jpg is not"), "{errors}");
    assert!(
        errors.ends_with("error: 1 of 21 pictures could not be read\n"),
        "{errors}"
    );
    // A line of names, and one for each picture.
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 21);
}

/// The first four test images of Fashion-MNIST, as pictures.
#[test]
fn the_trained_weights_in_the_repository_tell_clothes_apart() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/fashion-mnist");
    let (_, test) = idx::train_and_test(data, &idx::FASHION).unwrap();
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let pictures = ["0.pgm", "1.pgm", "2.pgm", "3.pgm"];
    for (image, picture) in pictures.into_iter().enumerate() {
        let mut pixels = vec![0; 784];
        test.load(image, None, &mut pixels).unwrap();
        let file = [b"P5 28 28 255\n", &pixels[..]].concat();
        fs::write(folder.join(picture), file).unwrap();
    }
    let arguments = ["predict", "--weights", CLOTHES_BC, "--input", "28"];
    let view = ["--crop-pct", "1", "--format", "csv"];
    let output = run(folder, &[&arguments[..], &view, &pictures].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    let lines = said.lines().skip(1);
    let decisions: Vec<_> = lines.filter_map(|line| line.rsplit(',').next()).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    let clothes = ["Ankle boot", "Pullover", "Trouser", "Trouser"];
    assert_eq!(decisions, clothes, "{said}{errors}");
}

#[test]
fn a_threshold_says_that_classes_are_independent_or_is_refused() {
    let folder = with_weights();
    let folder = folder.path();
    let all = ["--threshold", "0", "--format", "csv"];
    let [shown, told] = support::said(run(folder, &[&ASKED[..], &all].concat()));
    assert!(told.contains("judged on its own"), "{told}");
    let decision = shown.lines().nth(1).unwrap().rsplit(',').next().unwrap();
    assert_eq!(decision.split('|').count(), 10, "{shown}");
    train(folder, &["--steps", "1", "--out", "run"]);
    let own = [
        "predict",
        "--weights",
        "run/checkpoint.safetensors",
        "data/val",
    ];
    let refused = refusal(folder, &[&own[..], &["--threshold", "0.3"]].concat());
    let words = "--threshold is for pictures that may have several classes";
    assert!(refused.contains(words), "{refused}");
}

#[test]
fn classes_of_the_same_name_are_told_apart() {
    let folder = with_weights();
    let folder = folder.path();
    let names = "a\nb\nc\ncrane\nd\ne\nf\ncrane\ng\nh\n";
    fs::write(folder.join("names.txt"), names).unwrap();
    let more = ["--classes", "names.txt", "--format", "jsonl"];
    let shown = said(folder, &[&ASKED[..], &more].concat());
    for line in shown.lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        let all = answer["probabilities"].as_object().unwrap();
        assert_eq!(all.len(), 10, "{line}");
        assert!(
            all.contains_key("crane (class 7)") && all.contains_key("a"),
            "{line}"
        );
        let decision = answer["decisions"][0].as_str().unwrap();
        assert!(all.contains_key(decision), "{line}");
    }
    let both = [
        "--classes",
        "names.txt",
        "--maps",
        "maps",
        "--maps-of",
        "crane",
    ];
    said(folder, &[&ASKED[..], &both].concat());
}

#[test]
fn files_are_written_even_if_nobody_reads_the_answers() {
    let folder = with_weights();
    let folder = folder.path();
    let files = ["--features", "features.safetensors", "--maps", "maps"];
    let mut command = densenet(folder, &[&ASKED[..], &files].concat());
    let (_, closed) = std::io::pipe().unwrap();
    let output = command.stdout(closed).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let features = TensorFile::read(folder.join("features.safetensors")).unwrap();
    assert_eq!(features.shape("features").unwrap()[0], 20);
    assert_eq!(fs::read_dir(folder.join("maps")).unwrap().count(), 20);
}

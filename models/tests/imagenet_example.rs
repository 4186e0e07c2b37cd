//! The main example, end to end: pictures in, metrics, checkpoint and curves out, and on from
//! there.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use densenet_models::DenseNet201;
use densenet_runtime::Network;
use densenet_runtime::weights::{State, TensorFile, Unexpected};
use serde_json::Value;
use tempfile::TempDir;

/// Runs the example in a folder, alone: its threads would wait for those of another.
fn example(folder: &Path, arguments: &[&str]) -> Output {
    let _alone = cuda_emulator::alone();
    Command::new(support::example("imagenet_densenet201"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs it, and returns what it printed, and what it printed of errors.
fn succeed(folder: &Path, arguments: &[&str]) -> [String; 2] {
    support::said(example(folder, arguments))
}

/// A picture of each class to train on, and one to validate on, in `data`; and a file that is not a
/// picture.
fn data(folder: &Path) {
    let data = folder.join("data");
    support::pictures(&data, 1);
    let broken = support::a_class(&data, "val").join("broken.jpg");
    std::fs::write(&broken, b"no picture").unwrap();
    std::fs::write(broken.with_file_name("other.svg"), b"<svg/>").unwrap();
}

/// The lines of a file of metrics, each with its keys in order.
fn metrics(path: &Path) -> Vec<(Vec<String>, Value)> {
    let text = std::fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let keys = line.as_object().unwrap().keys().cloned().collect();
        (keys, line)
    };
    text.lines().map(line).collect()
}

/// A run of three steps, and a run of two that is resumed for one: the same files and figures.
#[test]
fn a_run_writes_metrics_checkpoint_and_curves_and_resumes_exactly() {
    let folder = TempDir::new().unwrap();
    data(folder.path());
    let common = ["--data", "data", "--batch-size", "2", "--lr", "0.01"];
    let run = |more: &[&str]| succeed(folder.path(), &[&common[..], more].concat());
    let settings = [
        "--epochs",
        "2",
        "--seed",
        "3",
        "--device",
        "cpu",
        "--precision",
        "f32",
    ];
    run(&[&settings[..], &["--steps", "3", "--out", "whole"]].concat());
    let [said, errors] = run(&[&settings[..], &["--steps", "2", "--out", "parts"]].concat());
    assert!(
        said.contains("validation after step 2: top-1 error "),
        "{said}"
    );
    // Files whose names are not those of pictures are counted.
    assert!(
        said.contains("left out of validation: 1 .svg (pictures end in .jpg, .jpeg, .png, "),
        "{said}"
    );
    assert!(!said.contains("left out of training"), "{said}");
    // The broken picture is named, and left out of the figures.
    assert!(errors.contains("skipped: data/val/"), "{errors}");
    assert!(
        errors.contains("broken.jpg is not a whole picture"),
        "{errors}"
    );
    assert!(said.contains("(10 pictures, centre crop)"), "{said}");
    // The bottlenecks computed again are the same numbers.
    let checkpoint = ["--resume", "parts/checkpoint.safetensors"];
    let [said, _] = run(&[&checkpoint[..], &["--steps", "3", "--recompute"]].concat());
    assert!(said.contains("at step 2"), "{said}");
    assert!(
        said.contains("validation after step 3: top-1 error "),
        "{said}"
    );

    let [whole, parts] = ["whole", "parts"].map(|run| folder.path().join(run));
    // Of a line of metrics, all that does not depend on the clock.
    let figures = |lines: &[(Vec<String>, Value)]| -> Vec<(u64, Option<f64>)> {
        let of = |line: &Value| (line["step"].as_u64().unwrap(), line["loss"].as_f64());
        lines.iter().map(|(_, line)| of(line)).collect()
    };
    let lines = metrics(&parts.join("metrics.jsonl"));
    for (keys, line) in &lines {
        if line.get("loss").is_some() {
            assert_eq!(keys.join(" "), "epoch images_per_s loss lr step");
            assert!(line["images_per_s"].as_f64().unwrap() > 0.0);
            assert_eq!(line["lr"].as_f64().unwrap() as f32, 0.01);
        } else {
            assert_eq!(keys.join(" "), "epoch step top1_error top5_error val_loss");
            let error = |key: &str| line[key].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&error("top5_error")));
            assert!(error("top5_error") <= error("top1_error"));
        }
    }
    let steps: Vec<_> = figures(&lines)
        .iter()
        .map(|&(step, loss)| (step, loss.is_some()))
        .collect();
    assert_eq!(
        steps,
        [(1, true), (2, true), (2, false), (3, true), (3, false)]
    );
    // The evaluation between is the only line that the other run has not.
    let mut without = figures(&lines);
    without.remove(2);
    assert_eq!(without, figures(&metrics(&whole.join("metrics.jsonl"))));

    let [whole_end, parts_end] = [&whole, &parts].map(|run| {
        let curves = std::fs::read(run.join("curves.png")).unwrap();
        assert!(curves.starts_with(b"\x89PNG"));
        let file = TensorFile::read(run.join("checkpoint.safetensors")).unwrap();
        State::from_file(&DenseNet201::PLAN, &file, Unexpected::Ignore).unwrap()
    });
    assert!(whole_end == parts_end);

    // All steps are done; only an evaluation is left, on ten crops this time.
    let [said, _] = run(&[
        "--steps",
        "3",
        "--crops",
        "10",
        "--resume",
        "whole/checkpoint.safetensors",
        "--out",
        "evaluation",
    ]);
    assert!(said.contains("(10 pictures, ten crops)"), "{said}");
    // Only existing files are listed.
    let listed = said
        .lines()
        .filter_map(|line| line.strip_prefix("  evaluation/"));
    assert_eq!(listed.collect::<Vec<_>>(), ["metrics.jsonl", "curves.png"]);

    // Other classes under the same labels are other data.
    let checkpoint_file = TensorFile::read(parts.join("checkpoint.safetensors")).unwrap();
    let classes = checkpoint_file.classes().unwrap();
    for set in ["train", "val"] {
        let set = folder.path().join("data").join(set);
        std::fs::rename(set.join(&classes[0]), set.join("aardvark")).unwrap();
    }
    let refused = [&common[..], &checkpoint, &["--steps", "4"]].concat();
    let output = example(folder.path(), &refused);
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains("only the data has `aardvark`"),
        "{message}"
    );
}

#[test]
fn without_data_it_draws_pictures_and_trains_on_them() {
    let folder = TempDir::new().unwrap();
    let [said, _] = succeed(folder.path(), &["--steps", "1", "--batch-size", "2"]);
    assert!(
        said.contains("640 pictures to train on, 160 to validate on, 10 classes"),
        "{said}"
    );
    assert!(said.contains("(160 pictures, centre crop)"), "{said}");
    let out = folder.path().join("out/imagenet_densenet201");
    for file in ["metrics.jsonl", "checkpoint.safetensors", "curves.png"] {
        assert!(out.join(file).exists(), "{file}");
    }
}

#[test]
fn errors_are_reported_before_training_starts() {
    let folder = TempDir::new().unwrap();
    let refusal = |arguments: &[&str]| support::refusal(&example(folder.path(), arguments));
    let message = refusal(&["--data", "nowhere", "--out", "out"]);
    assert!(
        message.starts_with("error: nowhere/train is missing: "),
        "{message}"
    );
    let message = refusal(&["--resume", "nowhere.safetensors"]);
    assert!(
        message.starts_with("error: cannot read nowhere.safetensors: "),
        "{message}"
    );
    let message = refusal(&["--steps", "0"]);
    assert!(message.contains("0 is not in 1.."), "{message}");
    let message = refusal(&["--lr", "-1"]);
    assert_eq!(
        message,
        "error: the learning rate must be 0 or more and finite, found -1\n"
    );
    // Nothing was announced or left.
    assert!(!folder.path().join("out").exists());
    data(folder.path());
    let message = refusal(&["--data", "data", "--batch-size", "11"]);
    assert!(
        message.contains("more than the 10 to train on; use --batch-size 10 or less"),
        "{message}"
    );
}

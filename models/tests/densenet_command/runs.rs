//! Runs: trained, resumed, and what they leave evaluated and asked.

use std::fs;

use serde_json::Value;

use crate::{SPEC, refusal, said, train, with_pictures};

#[test]
fn a_run_on_folders_is_trained_resumed_evaluated_and_asked() {
    let folder = with_pictures();
    let folder = folder.path();
    let shown = train(folder, &["--epochs", "2", "--steps", "7", "--out", "run"]);
    assert!(
        shown.contains("data      40 pictures to train on, 20 to validate on, 10 classes"),
        "{shown}"
    );
    assert!(shown.contains("validation after step 7"), "{shown}");
    for file in [
        "checkpoint.safetensors",
        "best.safetensors",
        "metrics.jsonl",
        "curves.png",
    ] {
        assert!(folder.join("run").join(file).is_file(), "{file}");
    }
    // The network and its classes are those of the checkpoint.
    let checkpoint = "run/checkpoint.safetensors";
    let shown = said(folder, &["train", "--data", "data", "--resume", checkpoint]);
    assert!(
        shown.contains("at step 7") && shown.contains("validation after step 10"),
        "{shown}"
    );

    let arguments = ["evaluate", "--weights", checkpoint, "--data", "data"];
    let files = ["--json", "scores.json", "--predictions", "scores.csv"];
    let shown = said(folder, &[&arguments[..], &files].concat());
    assert!(shown.starts_with("pictures     20\nloss  "), "{shown}");
    let scores: Value =
        serde_json::from_slice(&fs::read(folder.join("scores.json")).unwrap()).unwrap();
    // What the run itself found, but for the folded form's rounding.
    let metrics = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let [own, run] = [&scores["loss"], &last["val_loss"]].map(|loss| loss.as_f64().unwrap());
    assert!((own - run).abs() < 1e-4 * run, "{own} {run}");
    assert_eq!(scores["top1_error"], last["top1_error"]);
    for score in ["auroc", "average_precision"] {
        assert!(scores[score]["mean"].is_f64(), "{scores}");
        assert_eq!(scores[score]["by_class"].as_object().unwrap().len(), 10);
    }
    let table = fs::read_to_string(folder.join("scores.csv")).unwrap();
    let header = table.lines().next().unwrap();
    assert!(
        header.starts_with("path,") && header.split(',').count() == 11,
        "{header}"
    );
    assert_eq!(table.lines().count(), 21);
    for line in table.lines().skip(1) {
        let cells: Vec<_> = line.split(',').collect();
        let sum: f64 = cells[1..]
            .iter()
            .map(|cell| cell.parse::<f64>().unwrap())
            .sum();
        assert!((sum - 1.0).abs() < 1e-9, "{line}");
    }

    // The same probabilities, of a folder and of one picture.
    let arguments = ["predict", "--weights", checkpoint, "--format", "csv"];
    let asked = said(folder, &[&arguments[..], &["data/val"]].concat());
    let [asked, table] = [&asked, &table].map(|text| {
        let numbers = |line: &str| -> Vec<String> {
            line.split(',')
                .skip(1)
                .take(10)
                .map(str::to_owned)
                .collect()
        };
        text.lines().map(numbers).collect::<Vec<_>>()
    });
    assert_eq!(asked, table);
    let class = fs::read_dir(folder.join("data/val"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let picture = format!("data/val/{}/0000.jpg", class.file_name().to_str().unwrap());
    let asked = [
        "predict",
        "--weights",
        checkpoint,
        "--format",
        "jsonl",
        &picture,
    ];
    let answer: Value = serde_json::from_str(&said(folder, &asked)).unwrap();
    assert_eq!(answer["path"], picture.as_str());
    let likeliest = answer["probabilities"].as_object().unwrap().iter();
    let likeliest = likeliest.max_by(|(_, a), (_, b)| a.as_f64().partial_cmp(&b.as_f64()).unwrap());
    assert_eq!(answer["decisions"][0], likeliest.unwrap().0.as_str());
    let asked = said(folder, &["predict", "--weights", checkpoint, &picture]);
    assert_eq!(asked.lines().count(), 6, "{asked}");
}

#[test]
fn a_table_with_groups_and_unknown_labels_is_split_trained_and_evaluated() {
    let folder = with_pictures();
    let folder = folder.path();
    // Two independent classes; the second is unknown of each third picture. Patients have two
    // pictures each.
    let mut lines = vec!["path,patient,odd,late".to_string()];
    let mut count = 0;
    for entry in fs::read_dir(folder.join("data/train")).unwrap() {
        let class = entry.unwrap().file_name().into_string().unwrap();
        for number in 0..4 {
            let late = match count % 3 {
                0 => String::new(),
                _ => u8::from(number > 1).to_string(),
            };
            let odd = number % 2;
            lines.push(format!(
                "{class}/{number:04}.jpg,p{},{odd},{late}",
                count / 2
            ));
            count += 1;
        }
    }
    fs::write(folder.join("labels.csv"), lines.join("\n")).unwrap();
    let source = [
        "--csv",
        "labels.csv",
        "--root",
        "data/train",
        "--labels",
        "odd,late",
    ];
    let arguments = [
        "train",
        "--spec",
        SPEC,
        "--batch-size",
        "8",
        "--epochs",
        "1",
        "--out",
        "run",
    ];
    let split = ["--val", "0.25", "--group", "patient"];
    said(folder, &[&arguments[..], &source, &split].concat());
    assert!(folder.join("run/split.csv").is_file());

    let checkpoint = "run/checkpoint.safetensors";
    let arguments = ["evaluate", "--weights", checkpoint, "--json", "scores.json"];
    let shown = said(folder, &[&arguments[..], &source].concat());
    assert!(!shown.contains("top-1"), "{shown}");
    let scores: Value =
        serde_json::from_slice(&fs::read(folder.join("scores.json")).unwrap()).unwrap();
    assert_eq!(scores["top1_error"], Value::Null);
    assert_eq!(scores["known"]["odd"], 40);
    assert_eq!(scores["known"]["late"], 26);
    let unsure = [
        "predict",
        "--weights",
        checkpoint,
        "--format",
        "jsonl",
        "data/val",
    ];
    for (threshold, decisions) in [("0", 2), ("1", 0)] {
        let asked = said(folder, &[&unsure[..], &["--threshold", threshold]].concat());
        for line in asked.lines() {
            let answer: Value = serde_json::from_str(line).unwrap();
            assert_eq!(
                answer["decisions"].as_array().unwrap().len(),
                decisions,
                "{line}"
            );
        }
    }
}

#[test]
fn names_of_classes_in_a_spec_are_those_of_the_pictures() {
    let folder = with_pictures();
    let words = format!("{SPEC}, classes: [\"cat\", \"dog\"]");
    let said = refusal(
        folder.path(),
        &["train", "--data", "data", "--spec", &words],
    );
    assert!(
        said.contains("the spec names the classes [\"cat\", \"dog\"]"),
        "{said}"
    );
}

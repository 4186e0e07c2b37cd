//! The command line `densenet`, each of its commands as a program.

mod documents;
mod export;
mod info;
mod maps;
mod new;
mod on_cuda;
mod options;
mod predict;
mod refusals;
mod report;
mod runs;
#[path = "../support/mod.rs"]
mod support;
mod thresholds;
mod views;
mod weights;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use densenet_runtime::plan::Plan;
use densenet_runtime::weights::{TensorFile, plan_of};
use drawn_pictures::PictureSet;
use serde_json::Value;
use tempfile::TempDir;

/// A network that trains in no time.
const SPEC: &str = "blocks: [1, 1], k: 4, theta: 0.5, bottleneck, init: 8, input: [3, 32, 32]";

/// A network whose kernels other tests have compiled for the emulated device.
const EMULATED: &str = "blocks: [3, 2, 2], k: 4, theta: 0.5, bottleneck, stem: cifar, init: 8, \
                        input: [3, 13, 13], classes: 10";

/// Trains [`SPEC`] in steps of few pictures.
const SMALL: [&str; 5] = ["train", "--spec", SPEC, "--batch-size", "8"];

/// The command with arguments, to be run in a folder, on one thread.
fn densenet(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_densenet"));
    command.current_dir(folder).args(arguments);
    support::on_one_thread(command)
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    densenet(folder, arguments).output().unwrap()
}

/// What the command printed; it succeeded.
fn said(folder: &Path, arguments: &[&str]) -> String {
    let [said, _] = support::said(run(folder, arguments));
    said
}

/// The error of a refused command.
fn refusal(folder: &Path, arguments: &[&str]) -> String {
    support::refusal(&run(folder, arguments))
}

/// A folder with pictures of ten classes: `data/train` and `data/val`.
fn with_pictures() -> TempDir {
    let folder = TempDir::new().unwrap();
    let pictures = PictureSet {
        size: 64,
        train: 4,
        val: 2,
        ..PictureSet::default()
    };
    drawn_pictures::make(folder.path().join("data"), &pictures).unwrap();
    folder
}

/// The options of the table in [`with_table`].
const TABLE: [&str; 6] = [
    "--csv",
    "labels.csv",
    "--root",
    "data/train",
    "--labels",
    "odd,late",
];

/// Pictures, and a table of those to train on. It has two independent classes; the second is unknown
/// of each third picture. Patients have two pictures each.
fn with_table() -> TempDir {
    let folder = with_pictures();
    let mut lines = vec!["path,patient,odd,late".to_string()];
    let mut count = 0;
    for entry in fs::read_dir(folder.path().join("data/train")).unwrap() {
        let class = entry.unwrap().file_name().into_string().unwrap();
        for number in 0..4 {
            let late = match count % 3 {
                0 => String::new(),
                _ => u8::from(number > 1).to_string(),
            };
            let (patient, odd) = (count / 2, number % 2);
            lines.push(format!("{class}/{number:04}.jpg,p{patient},{odd},{late}"));
            count += 1;
        }
    }
    fs::write(folder.path().join("labels.csv"), lines.join("\n")).unwrap();
    folder
}

/// The contents of the `scores.json` of `evaluate`.
fn scores(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("scores.json")).unwrap()).unwrap()
}

/// The evaluations of a run, by its metrics.
fn evaluations(run: &Path) -> Vec<Value> {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &Value| !line["val_loss"].is_null())
        .collect()
}

fn last_evaluation(run: &Path) -> Value {
    evaluations(run).pop().unwrap()
}

/// Trains the small network for some steps; returns the messages.
fn train(folder: &Path, more: &[&str]) -> String {
    said(folder, &[&SMALL[..], &["--data", "data"], more].concat())
}

fn plan_in(file: &Path) -> Plan {
    plan_of(&TensorFile::read(file).unwrap(), Some([32, 32])).unwrap()
}

/// The first numbers after the path on each line of a table of probabilities.
fn numbers(table: &str, count: usize) -> Vec<Vec<f64>> {
    let row = |line: &str| {
        let cells = line.split(',').skip(1).take(count);
        cells.map(|cell| cell.parse().unwrap()).collect()
    };
    table.lines().skip(1).map(row).collect()
}

/// The path on each line of a table of probabilities.
fn paths(table: &str) -> impl Iterator<Item = &str> {
    let lines = table.lines().skip(1);
    lines.map(|line| line.split(',').next().unwrap())
}

/// The probability of a class in `judged.csv`, and whether it applies by the table of labels, for
/// the pictures with a known label. Labels begin in the third column.
fn judged(folder: &Path, labels: &str, class: usize) -> Vec<(f64, bool)> {
    let table = fs::read_to_string(folder.join(labels)).unwrap();
    let labels: HashMap<_, _> = table
        .lines()
        .map(|line| {
            let cells: Vec<_> = line.split(',').collect();
            (cells[0].to_string(), cells[2 + class].to_string())
        })
        .collect();
    let judged = fs::read_to_string(folder.join("judged.csv")).unwrap();
    let rows = paths(&judged).zip(numbers(&judged, class + 1));
    rows.filter_map(|(path, row)| match &*labels[path] {
        "" => None,
        label => Some((row[class], label == "1")),
    })
    .collect()
}

//! The command line `densenet`, each of its commands as a program.

mod info;
mod new;
mod predict;
mod refusals;
mod runs;
#[path = "../support/mod.rs"]
mod support;
mod weights;

use std::path::Path;
use std::process::{Command, Output};

use densenet_runtime::plan::Plan;
use densenet_runtime::weights::{TensorFile, plan_of};
use drawn_pictures::Pictures;
use tempfile::TempDir;

/// A network that trains in no time.
const SPEC: &str = "blocks: [1, 1], k: 4, theta: 0.5, bottleneck, init: 8, input: [3, 32, 32]";

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

/// What it said of what it refused.
fn refusal(folder: &Path, arguments: &[&str]) -> String {
    support::refusal(&run(folder, arguments))
}

/// A folder with pictures of ten classes: `data/train` and `data/val`.
fn with_pictures() -> TempDir {
    let folder = TempDir::new().unwrap();
    let pictures = Pictures {
        size: 64,
        train: 4,
        val: 2,
        ..Pictures::default()
    };
    drawn_pictures::make(folder.path().join("data"), &pictures).unwrap();
    folder
}

/// Trains the small network for some steps; returns what was said.
fn train(folder: &Path, more: &[&str]) -> String {
    let arguments = [
        "train",
        "--data",
        "data",
        "--spec",
        SPEC,
        "--batch-size",
        "8",
    ];
    said(folder, &[&arguments[..], more].concat())
}

fn plan_in(file: &Path) -> Plan {
    plan_of(&TensorFile::read(file).unwrap(), Some([32, 32])).unwrap()
}

/// The first so many numbers after the path on each line of a table of probabilities.
fn numbers(table: &str, count: usize) -> Vec<Vec<f64>> {
    let row = |line: &str| {
        let cells = line.split(',').skip(1).take(count);
        cells.map(|cell| cell.parse().unwrap()).collect()
    };
    table.lines().skip(1).map(row).collect()
}

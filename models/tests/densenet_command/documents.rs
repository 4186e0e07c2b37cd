//! The commands that documents show.

use std::fs;
use std::path::Path;

use densenet_models::preset;
use densenet_runtime::weights::State;

use crate::{run, said, support, with_pictures};

/// What stands before the command in the README.
const CARGO: &str = "cargo run --release -p densenet-models --bin densenet -- ";

fn document(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(name)).unwrap()
}

/// The words of each line that starts so, after its start.
fn commands(document: &str, start: &str) -> Vec<Vec<String>> {
    let lines = document.lines();
    let lines = lines.filter_map(|line| line.strip_prefix(start));
    lines.map(|line| shlex::split(line).unwrap()).collect()
}

#[test]
fn the_three_lines_of_the_readme_work_as_they_are_typed() {
    let folder = with_pictures();
    let folder = folder.path();
    fs::rename(folder.join("data"), folder.join("pictures")).unwrap();
    fs::copy(
        folder.join("pictures/val/dots/0000.jpg"),
        folder.join("cat.jpg"),
    )
    .unwrap();
    let plan = preset("densenet121").unwrap().plan();
    let weights = folder.join("densenet121-a639ec97.pth");
    State::initial(&plan, 3).write(&plan, weights).unwrap();

    let lines = commands(&document("README.md"), CARGO);
    let commands: Vec<_> = lines.iter().map(|line| &*line[0]).collect();
    assert_eq!(commands, ["train", "evaluate", "predict"]);
    for (line, expected) in lines.iter().zip(["best: ", "top-1 error", "cat.jpg"]) {
        let mut line: Vec<_> = line.iter().map(String::as_str).collect();
        if line[0] == "train" {
            // A run of one small step.
            line.extend(["--input", "32", "--steps", "1", "--batch-size", "4"]);
        }
        let said = said(folder, &line);
        assert!(said.contains(expected), "{line:?}: {said}");
    }
}

#[test]
fn options_in_documents_are_those_of_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    let documents = ["docs/command.md", "docs/finetuning.md", "docs/onnx.md"].map(document);
    for line in commands(&documents.concat(), "densenet ") {
        let mut line: Vec<_> = line.iter().map(String::as_str).collect();
        // All that stands before it is read, and nothing is done.
        line.push("--help");
        let [said, _] = support::said(run(folder.path(), &line));
        assert!(said.contains("Usage: densenet"), "{line:?}: {said}");
        count += 1;
    }
    assert!(count >= 9, "{count}");
}

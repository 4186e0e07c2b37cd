//! `densenet new`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{SPEC, said, support, with_pictures};

#[test]
fn a_new_crate_trains_by_cargo_run() {
    let folder = with_pictures();
    let folder = folder.path();
    let shown = said(
        folder,
        &["new", "my-shapes", "--data", "data", "--spec", SPEC],
    );
    assert!(shown.contains("cd my-shapes && cargo run"), "{shown}");
    let made = folder.join("my-shapes");
    let program = fs::read_to_string(made.join("src/main.rs")).unwrap();
    assert!(
        program.contains("pub MyShapesNet {\n        blocks: [1, 1],"),
        "{program}"
    );
    // The dependencies are those that the tests are made with, and nothing is fetched. They are
    // built as for the tests, so most exist already.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::copy(root.join("Cargo.lock"), made.join("Cargo.lock")).unwrap();
    let own = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let profiles = &own[own.find("[profile.dev]").unwrap()..];
    let manifest = fs::read_to_string(made.join("Cargo.toml")).unwrap();
    let (start, rest) = manifest.split_once("# Training at full speed").unwrap();
    let (_, end) = rest.split_once("# A workspace").unwrap();
    let manifest = format!("{start}{profiles}\n# A workspace{end}");
    fs::write(made.join("Cargo.toml"), manifest).unwrap();
    let target = Path::new(env!("CARGO_BIN_EXE_densenet"))
        .ancestors()
        .nth(2)
        .unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["run", "--offline", "--quiet"])
        .current_dir(&made);
    cargo.env("CARGO_TARGET_DIR", target);
    let [said, _] = support::said(support::on_one_thread(cargo).output().unwrap());
    assert!(said.contains("best: top-1 error"), "{said}");
    assert!(made.join("out/checkpoint.safetensors").is_file());
    assert!(made.join("out/best.safetensors").is_file());
}

#[test]
fn a_new_crate_of_a_grey_network_reads_grey_pictures() {
    let folder = with_pictures();
    let folder = folder.path();
    let new = [
        "new", "grey", "--data", "data", "--spec", SPEC, "--input", "1x32x32",
    ];
    said(folder, &new);
    let program = fs::read_to_string(folder.join("grey/src/main.rs")).unwrap();
    assert!(program.contains("input: [1, 32, 32]"), "{program}");
    assert!(
        program.contains("Pictures::shaped([1, 32, 32])"),
        "{program}"
    );
}

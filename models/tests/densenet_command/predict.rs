//! `densenet predict`.

use std::fs;

use densenet_runtime::weights::State;

use crate::{SPEC, run, with_pictures};

#[test]
fn a_picture_that_cannot_be_read_is_reported_and_the_others_are_still_asked_about() {
    let folder = with_pictures();
    let folder = folder.path();
    let words = format!("{SPEC}, classes: 10");
    let plan = densenet_spec::Spec::parse(&words).unwrap().plan;
    State::initial(&plan, 3)
        .write(&plan, folder.join("weights.safetensors"))
        .unwrap();
    fs::write(folder.join("broken.jpg"), b"no picture").unwrap();
    let list = "broken.jpg\n";
    fs::write(folder.join("list.txt"), list).unwrap();
    let arguments = [
        "predict",
        "--weights",
        "weights.safetensors",
        "--input",
        "32",
    ];
    let asked = ["--format", "csv", "--list", "list.txt", "data/val"];
    let output = run(folder, &[&arguments[..], &asked].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("broken.jpg is not"), "{errors}");
    assert!(
        errors.ends_with("error: 1 of 21 pictures could not be read\n"),
        "{errors}"
    );
    // A line of names, and one for each picture.
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 21);
}

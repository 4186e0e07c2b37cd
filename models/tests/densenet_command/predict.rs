//! `densenet predict`.

use std::fs;

use densenet_models::CLOTHES_BC;
use densenet_runtime::data::{Dataset, idx};
use densenet_runtime::weights::State;
use tempfile::TempDir;

use crate::{SPEC, run, with_pictures};

#[test]
fn a_picture_that_cannot_be_read_is_reported_and_the_others_are_still_asked_about() {
    let folder = with_pictures();
    let folder = folder.path();
    let words = format!("{SPEC}, classes: 10");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
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

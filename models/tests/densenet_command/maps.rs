//! `densenet predict --maps` and `--features`: what the network looked at.

use std::fs;
use std::path::Path;

use densenet_runtime::weights::{State, TensorFile};
use tempfile::TempDir;

use crate::{SPEC, numbers, refusal, said, with_pictures};

/// Pictures, and weights of a network with ten classes, whose names are numbers.
fn with_weights() -> TempDir {
    let folder = with_pictures();
    let words = format!("{SPEC}, classes: 10");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    let weights = folder.path().join("weights.safetensors");
    State::initial(&plan, 3).write(&plan, weights).unwrap();
    folder
}

fn predict(more: &[&'static str]) -> Vec<&'static str> {
    let asked = [
        "predict",
        "--weights",
        "weights.safetensors",
        "--input",
        "32",
    ];
    [&asked[..], &["--format", "csv", "data/val"], more].concat()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Width and height of a PNG file.
fn sides(file: &Path) -> [u32; 2] {
    let bytes = fs::read(file).unwrap();
    assert_eq!(&bytes[1..4], b"PNG");
    [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()))
}

#[test]
fn each_picture_is_drawn_with_maps_of_the_likeliest_classes_or_of_those_asked() {
    let folder = with_weights();
    let folder = folder.path();
    said(folder, &predict(&["--maps", "maps", "--top", "2"]));
    // Two pictures of each of ten classes have the same two names.
    let drawn = names(&folder.join("maps"));
    assert_eq!(drawn.len(), 20);
    assert_eq!(
        drawn[..3],
        ["0001_0000.png", "0002_0001.png", "0003_0000.png"]
    );
    let one = "--maps-of";
    said(folder, &predict(&["--maps", "asked/one", one, "class 7"]));
    let [two, one] = ["maps", "asked/one"].map(|own| sides(&folder.join(own).join(&drawn[0])));
    // The picture and two maps, and the picture and one.
    assert_eq!((two[0] - one[0], two[1]), (256 + 16, one[1]));
}

#[test]
fn what_is_there_is_not_overwritten_and_unknown_classes_are_refused() {
    let folder = with_weights();
    let folder = folder.path();
    fs::create_dir(folder.join("full")).unwrap();
    fs::write(folder.join("full/0001_0000.png"), "mine").unwrap();
    for (more, words) in [
        (
            ["--maps", "full"],
            "error: --maps full: the folder is not empty; choose a new one, or empty it\n",
        ),
        (
            ["--maps", "weights.safetensors"],
            "error: --maps weights.safetensors: it is a file; choose a new folder\n",
        ),
        (
            ["--features", "features.txt"],
            "error: --features features.txt: the name must end in .safetensors or .csv, which \
                decides the format\n",
        ),
    ] {
        assert_eq!(refusal(folder, &predict(&more)), words);
    }
    assert_eq!(
        fs::read(folder.join("full/0001_0000.png")).unwrap(),
        b"mine"
    );
    let said = refusal(
        folder,
        &predict(&["--maps", "new", "--maps-of", "class 3,cat"]),
    );
    let words =
        "error: --maps-of: there is no class \"cat\"; the classes are \"class 0\", \"class 1\", ";
    assert!(said.starts_with(words), "{said}");
    assert!(!folder.join("new").exists());
}

#[test]
fn features_are_written_as_a_tensor_or_a_table_and_give_the_logits() {
    let folder = with_weights();
    let folder = folder.path();
    let said = said(folder, &predict(&["--features", "features.safetensors"]));
    crate::said(folder, &predict(&["--features", "features.csv"]));

    let file = TensorFile::read(folder.join("features.safetensors")).unwrap();
    let shape = file.shape("features").unwrap();
    let (pictures, width) = (shape[0], shape[1]);
    assert_eq!(pictures, 20);
    let features = file.floats("features").unwrap();
    let paths: Vec<String> = serde_json::from_str(file.note("paths").unwrap()).unwrap();
    let table = fs::read_to_string(folder.join("features.csv")).unwrap();
    let rows = numbers(&table, width);
    let of_table = table
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().unwrap());
    assert_eq!(paths, of_table.collect::<Vec<_>>());
    let of_table = rows.concat().into_iter().map(|value| value as f32);
    assert_eq!(of_table.collect::<Vec<_>>(), features);

    // The classifier makes the probabilities of them.
    let weights = TensorFile::read(folder.join("weights.safetensors")).unwrap();
    let [weight, bias] =
        ["weight", "bias"].map(|name| weights.floats(&format!("classifier.{name}")).unwrap());
    for (row, features) in numbers(&said, 10).iter().zip(features.chunks_exact(width)) {
        let powers: Vec<f64> = weight
            .chunks_exact(width)
            .zip(&bias)
            .map(|(weight, bias)| {
                let sum: f32 = weight.iter().zip(features).map(|(a, b)| a * b).sum();
                f64::from(sum + bias).exp()
            })
            .collect();
        let all: f64 = powers.iter().sum();
        for (power, probability) in powers.iter().zip(row) {
            assert!((power / all - probability).abs() < 1e-5);
        }
    }
}

//! Files of weights: the start of a run, their notes, and their conversion.

use std::fs;
use std::path::Path;

use densenet_runtime::cpu::{Frozen, FrozenOptions};
use densenet_runtime::data::{Dataset, ImageFolder, Normalization};
use densenet_runtime::weights::{Notes, State, TensorFile};
use tempfile::TempDir;

use crate::{SMALL, SPEC, numbers, plan_in, refusal, run, said, support, train, with_pictures};

fn notes_of(file: &Path) -> Notes {
    Notes::of(&TensorFile::read(file).unwrap()).unwrap()
}

#[test]
fn other_classes_need_the_features_only_and_the_message_says_so() {
    let folder = with_pictures();
    let folder = folder.path();
    // Weights of the same layers for five classes.
    let words = format!("{SPEC}, classes: 5");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    let weights = folder.join("weights.safetensors");
    let state = State::initial(&plan, 3);
    state.write(&plan, &weights).unwrap();
    let arguments = [&SMALL[..], &["--data", "data"]].concat();
    let pretrained = ["--pretrained", "weights.safetensors", "--out", "run"];
    let refused = refusal(folder, &[&arguments[..], &pretrained].concat());
    assert!(refused.contains("--features-only"), "{refused}");
    assert!(!folder.join("run").exists());
    let shown = train(
        folder,
        &[
            &pretrained[..],
            &["--features-only", "--steps", "1", "--lr", "0"],
        ]
        .concat(),
    );
    assert!(shown.contains("classifier.weight"), "{shown}");
    // With a learning rate of 0 they do not change.
    let checkpoint = folder.join("run/checkpoint.safetensors");
    let own = State::from_file(
        &plan_in(&checkpoint),
        &TensorFile::read(&checkpoint).unwrap(),
        densenet_runtime::weights::Unexpected::Ignore,
    )
    .unwrap();
    let features = plan.tensors().head.weight.start;
    assert_eq!(own.parameters[..features], state.parameters[..features]);
}

#[test]
fn weights_are_converted_there_and_back() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let plan = densenet_spec::ParsedSpec::parse(SPEC).unwrap().plan;
    let state = State::initial(&plan, 3);
    let [first, there, back] = ["a.safetensors", "b.pth", "c.safetensors"];
    state.write(&plan, folder.join(first)).unwrap();
    said(folder, &["convert", first, there]);
    let shown = said(folder, &["convert", there, back]);
    assert!(shown.contains("written to c.safetensors"), "{shown}");
    let read = |name: &str| State::read(&plan_in(&folder.join(name)), folder.join(name)).unwrap();
    assert_eq!(read(there), state);
    assert_eq!(read(back), state);
    let said = refusal(folder, &["convert", first, "d.onnx"]);
    assert!(said.contains("d.onnx"), "{said}");
    let shown = self::said(folder, &["info", there, "--input", "32"]);
    assert!(
        shown.contains("blocks: [1, 1], k: 4, theta: 0.5, bottleneck"),
        "{shown}"
    );
}

#[test]
fn pictures_are_normalised_as_the_weights_were_trained_and_a_difference_is_said() {
    let folder = with_pictures();
    let folder = folder.path();
    let normalization = Normalization {
        mean: vec![0.25, 0.5, 0.75],
        std: vec![0.5, 1.5, 0.75],
    };
    let words = format!("{SPEC}, classes: 10");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    let state = State::initial(&plan, 3);
    let notes = Notes {
        normalization: Some(normalization.clone()),
        ..Notes::default()
    };
    let own = folder.join("own.safetensors");
    state.write_with(&plan, &own, &notes).unwrap();

    let images = ImageFolder::open(folder.join("data/val"), [32, 32]).unwrap();
    let options = FrozenOptions::for_batch(1);
    let mut network = Frozen::new(&plan, &state.parameters, &state.running, options).unwrap();
    let mut expected = Vec::new();
    for index in 0..images.len() {
        let mut bytes = vec![0; 3 * 32 * 32];
        images.load(index, None, &mut bytes).unwrap();
        let logits = network.infer(normalization.pixels(&bytes), 1).unwrap();
        let powers: Vec<f64> = logits.iter().map(|&own| f64::from(own).exp()).collect();
        let sum: f64 = powers.iter().sum();
        expected.push(powers.into_iter().map(|own| own / sum).collect::<Vec<_>>());
    }
    let asked = ["--weights", "own.safetensors", "--input", "32"];
    let judged = ["--data", "data", "--predictions", "judged.csv"];
    let [_, evaluated] = support::said(run(folder, &[&["evaluate"], &asked[..], &judged].concat()));
    let table = ["--format", "csv", "data/val"];
    let [answers, predicted] =
        support::said(run(folder, &[&["predict"], &asked[..], &table].concat()));
    for errors in [evaluated, predicted] {
        assert_eq!(
            errors,
            "images are normalised as the weights were trained: own.safetensors has mean 0.25, 0.5, 0.75 \
             and std 0.5, 1.5, 0.75, but the data has mean 0.485, 0.456, 0.406 and std 0.229, 0.224, \
             0.225\n"
        );
    }
    let judged = fs::read_to_string(folder.join("judged.csv")).unwrap();
    for found in [answers, judged] {
        let found = numbers(&found, 10);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    // A run that starts from them keeps it, and so does a resumed one.
    train(
        folder,
        &[
            "--pretrained",
            "own.safetensors",
            "--steps",
            "1",
            "--out",
            "run",
        ],
    );
    let checkpoint = folder.join("run/checkpoint.safetensors");
    assert_eq!(
        notes_of(&checkpoint).normalization.as_ref(),
        Some(&normalization)
    );
    let resume = ["--resume", "run/checkpoint.safetensors", "--steps", "2"];
    said(
        folder,
        &[&["train", "--data", "data"], &resume[..]].concat(),
    );
    assert_eq!(notes_of(&checkpoint).normalization, Some(normalization));
}

#[test]
fn weights_for_colour_are_used_for_grey_pictures_as_those_are_usually_normalised() {
    let folder = with_pictures();
    let folder = folder.path();
    let words = format!("{SPEC}, classes: 10");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    let notes = Notes {
        normalization: Some(Normalization::imagenet()),
        ..Notes::default()
    };
    State::initial(&plan, 3)
        .write_with(&plan, folder.join("rgb.safetensors"), &notes)
        .unwrap();
    let grey = ["--spec", SPEC, "--input", "1x32x32", "--steps", "1"];
    let arguments = [
        "train",
        "--data",
        "data",
        "--batch-size",
        "8",
        "--out",
        "run",
    ];
    let pretrained = ["--pretrained", "rgb.safetensors"];
    let [_, errors] = support::said(run(folder, &[&arguments[..], &grey, &pretrained].concat()));
    assert!(
        errors.contains(
            "rgb.safetensors normalises images of 3 channels; those of 1 get mean 0.449 and std 0.226"
        ),
        "{errors}"
    );
    let notes = notes_of(&folder.join("run/checkpoint.safetensors"));
    assert_eq!(notes.normalization, Some(Normalization::grey()));
}

#[test]
fn a_network_that_is_asked_for_is_that_of_the_file_or_refused() {
    let folder = with_pictures();
    let folder = folder.path();
    train(folder, &["--steps", "1", "--out", "run"]);
    let checkpoint = "run/checkpoint.safetensors";
    let resume = [
        "train", "--data", "data", "--resume", checkpoint, "--steps", "2",
    ];
    for other in [["--input", "64"], ["--model", "densenet169"]] {
        let refused = refusal(folder, &[&resume[..], &other].concat());
        assert!(
            refused.contains("has another network than --model"),
            "{refused}"
        );
    }
    said(folder, &[&resume[..], &["--spec", SPEC]].concat());
    let named = format!("{SPEC}, classes: [\"x\", \"y\"]");
    let refused = refusal(folder, &[&resume[..], &["--spec", &named]].concat());
    assert!(refused.contains("the spec names the classes"), "{refused}");
    // Without --model it is that of the weights, whether they note it or not.
    let plan = plan_in(&folder.join(checkpoint));
    let state = State::read(&plan, folder.join(checkpoint)).unwrap();
    state.write(&plan, folder.join("bare.safetensors")).unwrap();
    for weights in [
        &["run/checkpoint.safetensors"][..],
        &["bare.safetensors", "--input", "32"],
    ] {
        let start = [
            "train",
            "--data",
            "data",
            "--batch-size",
            "8",
            "--steps",
            "1",
        ];
        let more = [&["--out", "next", "--pretrained"], weights].concat();
        said(folder, &[&start[..], &more].concat());
        assert_eq!(plan_in(&folder.join("next/checkpoint.safetensors")), plan);
    }
}

#[test]
fn classes_that_a_spec_names_are_those_of_weights_that_name_none() {
    let folder = with_pictures();
    let folder = folder.path();
    let two = format!("{SPEC}, classes: 2");
    let plan = densenet_spec::ParsedSpec::parse(&two).unwrap().plan;
    let state = State::initial(&plan, 3);
    state.write(&plan, folder.join("two.safetensors")).unwrap();
    let named = Notes {
        classes: ["abnormal", "normal"].map(String::from).to_vec(),
        ..Notes::default()
    };
    let path = folder.join("named.safetensors");
    state.write_with(&plan, path, &named).unwrap();
    let drawn = fs::read_dir(folder.join("data/val")).unwrap();
    for (class, from) in ["abnormal", "normal"].into_iter().zip(drawn) {
        let own = folder.join("two").join(class);
        fs::create_dir_all(&own).unwrap();
        fs::copy(from.unwrap().path().join("0000.jpg"), own.join("1.jpg")).unwrap();
    }
    let words = format!("{SPEC}, classes: [\"normal\", \"abnormal\"]");
    let own = ["--weights", "two.safetensors", "--spec", &words];
    let refused = refusal(folder, &[&["evaluate", "--data", "two"][..], &own].concat());
    let expected = "but the weights are for [\"normal\", \"abnormal\"]";
    assert!(refused.contains(expected), "{refused}");
    let asked = ["predict", "--format", "csv", "two"];
    let shown = said(folder, &[&asked[..], &own].concat());
    assert!(
        shown.starts_with("path,normal,abnormal,decision\n"),
        "{shown}"
    );
    let own = ["--weights", "named.safetensors", "--spec", &words];
    let refused = refusal(folder, &[&asked[..], &own].concat());
    assert!(refused.contains("leave `classes` out"), "{refused}");
}

//! `densenet export`. For the results of other runtimes, see `tests/tests/onnx_agrees_with_pytorch.rs`.

use std::fs;
use std::path::Path;

use densenet_runtime::Normalization;
use densenet_runtime::plan::Plan;
use densenet_runtime::weights::onnx::{self, ExportOptions, Output};
use densenet_runtime::weights::{Notes, State};
use tempfile::TempDir;

use crate::{SPEC, refusal, said, train, with_pictures};

/// A folder with `weights.safetensors` of two classes.
fn with_weights(notes: &Notes) -> (TempDir, Plan, State) {
    let folder = TempDir::new().unwrap();
    let words = format!("{SPEC}, classes: 2");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    let state = State::initial(&plan, 3);
    let path = folder.path().join("weights.safetensors");
    state.write_with(&plan, path, notes).unwrap();
    (folder, plan, state)
}

fn export(folder: &Path, more: &str) -> String {
    let command = format!("export --weights weights.safetensors --onnx out.onnx {more}");
    said(folder, &command.split_whitespace().collect::<Vec<_>>())
}

fn contains(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).unwrap();
    bytes.windows(text.len()).any(|own| own == text.as_bytes())
}

#[test]
fn a_file_is_what_the_options_ask_for() {
    let notes = Notes {
        classes: ["cat", "dog"].map(String::from).to_vec(),
        normalization: Some(Normalization {
            mean: vec![0.25, 0.5, 0.75],
            std: vec![0.5, 1.5, 0.75],
        }),
        thresholds: Vec::new(),
    };
    let (folder, plan, state) = with_weights(&notes);
    let folder = folder.path();
    for (words, fold, f16, output) in [
        ("", false, false, Output::Logits),
        ("--fold", true, false, Output::Logits),
        ("--f16 --softmax", false, true, Output::Softmax),
        ("--fold --sigmoid", true, false, Output::Sigmoid),
    ] {
        let shown = export(folder, &format!("--input 32 {words}"));
        let name = match output {
            Output::Logits => "logits",
            _ => "probabilities",
        };
        let expected =
            format!("written to out.onnx: images, batch x 3 x 32 x 32, give {name}, batch x 2");
        assert!(shown.contains(&expected), "{shown}");
        let view = r#"{"crop_pct":0.875,"interpolation":"bilinear"}"#;
        let spec = "blocks: [1, 1], k: 4, theta: 0.5, bottleneck, classes: 2";
        let metadata = [("densenet.view", view), ("densenet.spec", spec)];
        let metadata = metadata.map(|(key, value)| (key.to_string(), value.to_string()));
        let options = ExportOptions {
            fold,
            f16,
            output,
            notes: notes.clone(),
            metadata: metadata.into(),
        };
        onnx::write(&plan, &state, folder.join("expected.onnx"), &options).unwrap();
        let [found, expected] =
            ["out.onnx", "expected.onnx"].map(|name| fs::read(folder.join(name)).unwrap());
        assert!(found == expected, "{words}");
    }
}

#[test]
fn weights_of_a_run_are_exported_with_what_its_files_remember() {
    let folder = with_pictures();
    let folder = folder.path();
    let view = ["--crop-pct", "0.95", "--interpolation", "bicubic"];
    let run = ["--steps", "1", "--out", "run"];
    train(folder, &[&run[..], &view].concat());
    said(
        folder,
        &[
            "export",
            "--weights",
            "run/checkpoint.safetensors",
            "--onnx",
            "out.onnx",
        ],
    );
    for text in [
        r#"{"crop_pct":0.95,"interpolation":"bicubic"}"#,
        r#"{"mean":[0.48500001"#,
        "exclusive",
        "densenet.classes",
    ] {
        assert!(contains(&folder.join("out.onnx"), text), "{text}");
    }
    // The kind of classes is noted.
    let refused = "export --weights run/checkpoint.safetensors --onnx no.onnx --sigmoid";
    let refused = refusal(folder, &refused.split(' ').collect::<Vec<_>>());
    assert!(refused.contains("use --softmax"), "{refused}");
}

#[test]
fn what_cannot_be_exported_is_refused_by_what_is_wrong_with_it() {
    let notes = Notes {
        thresholds: vec![Some(0.5), None],
        ..Notes::default()
    };
    let (folder, ..) = with_weights(&notes);
    let folder = folder.path();
    fs::create_dir(folder.join("folder.onnx")).unwrap();
    let weights = fs::read(folder.join("weights.safetensors")).unwrap();
    fs::write(folder.join("damaged.safetensors"), &weights[..1000]).unwrap();
    for (command, expected) in [
        ("--onnx a.onnx", "--weights <FILE>"),
        ("--weights weights.safetensors", "--onnx <OUT.onnx>"),
        ("--weights none --onnx a.onnx", "cannot read none"),
        (
            "--weights damaged.safetensors --onnx a.onnx",
            "damaged.safetensors is damaged",
        ),
        (
            "--weights weights.safetensors --onnx a.onnx --model resnet50",
            "unknown preset \"resnet50\"",
        ),
        (
            "--weights weights.safetensors --onnx a.onnx --model densenet121",
            "weights.safetensors does not fit the network: missing (",
        ),
        (
            "--weights weights.safetensors --onnx a.onnx --spec no",
            "blocks",
        ),
        ("--weights weights.safetensors --onnx a.onnx --input 0", "0"),
        (
            "--weights weights.safetensors --onnx a.onnx --softmax --sigmoid",
            "cannot be used with",
        ),
        (
            "--weights weights.safetensors --onnx a.onnx --softmax",
            "a picture may have several of the classes of weights.safetensors; use --sigmoid",
        ),
        (
            "--weights weights.safetensors --onnx weights.safetensors",
            "weights.safetensors does not end in .onnx",
        ),
        (
            "--weights weights.safetensors --onnx folder.onnx",
            "cannot write folder.onnx",
        ),
        (
            "--weights weights.safetensors --onnx none/a.onnx",
            "cannot write none/a.onnx",
        ),
    ] {
        let arguments: Vec<&str> = ["export"].into_iter().chain(command.split(' ')).collect();
        let said = refusal(folder, &arguments);
        assert!(said.contains(expected), "{command}: {said}");
    }
    assert!(!folder.join("a.onnx").exists());
    assert!(fs::read(folder.join("weights.safetensors")).unwrap() == weights);
    let left = fs::read_dir(folder).unwrap().count();
    assert_eq!(left, 3);
}

#[test]
fn a_grey_network_that_is_asked_for_is_exported() {
    let (folder, ..) = with_weights(&Notes::default());
    let shown = export(folder.path(), "--input 1x32x32");
    assert!(shown.contains("images, batch x 1 x 32 x 32"), "{shown}");
}

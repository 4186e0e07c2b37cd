//! What is written, and its notes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use densenet_runtime::Normalization;
use densenet_runtime::weights::{
    NamedTensor, Notes, State, TensorFile, convert, convert_to_f16, copy,
};
use tempfile::TempDir;

use crate::containers::assert_has_the_tensors;
use crate::{golden, load, network, plan};

/// `scripts/golden_weights.py check` shows that PyTorch takes the golden file.
#[test]
fn a_written_file_is_the_one_that_pytorch_took() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("written.pth");
    let weight: Vec<_> = (0_u8..24).map(|index| f32::from(index) / 8.0).collect();
    let tensors = [
        NamedTensor::new("a.weight", [2, 3, 4], &weight),
        NamedTensor::new("a.bias", [2], &[-1.5, 0.25]),
        NamedTensor::new("scalar", [], &[2.5]),
        NamedTensor::new("empty", [0, 3], &[]),
    ];
    let notes = BTreeMap::from([("densenet.classes".into(), r#"["cat","dög"]"#.into())]);
    TensorFile::write_torch(&path, tensors, notes).unwrap();
    let file = TensorFile::read(&path).unwrap();
    assert_has_the_tensors(&file, 0.0);
    assert_eq!(file.classes().unwrap(), ["cat", "dög"]);
    let bytes = fs::read(&path).unwrap();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("written.pth");
    if fs::read(golden("written.pth")).ok() != Some(bytes.clone()) {
        fs::write(&kept, bytes).unwrap();
        panic!(
            "the file differs from tests/pytorch/written.pth; copy {} there, and run `python \
             scripts/golden_weights.py check`",
            kept.display()
        );
    }
}

fn notes() -> Notes {
    Notes {
        classes: ["cat", "dog", "hen"].map(String::from).to_vec(),
        normalization: Some(Normalization {
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }),
        thresholds: vec![Some(0.5), None, Some(0.875)],
    }
}

/// The safetensors crate and `half` say what is in the file.
#[test]
fn in_f16_matrices_take_half_the_bytes_and_each_weight_is_rounded_to_the_nearest() {
    let folder = TempDir::new().unwrap();
    let [own, first, torch] =
        ["own.safetensors", "half.safetensors", "half.pth"].map(|name| folder.path().join(name));
    let plan = plan(3, 3);
    let (state, _) = load(&plan, &network("monai"));
    state.write_with(&plan, &own, &notes()).unwrap();
    for to in [&first, &torch] {
        convert_to_f16(&own, to).unwrap();
        let file = TensorFile::read(to).unwrap();
        assert_eq!(Notes::of(&file).unwrap(), notes());
    }
    let bytes = fs::read(&first).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let [file, torch] = [&first, &torch].map(|path| TensorFile::read(path).unwrap());
    for parameter in plan.parameters() {
        let name = &parameter.torchvision;
        let values = state.of_parameter(&parameter);
        let tensor = tensors.tensor(name).unwrap();
        let (is_matrix, round) = (parameter.shape.len() > 1, half::f16::from_f32);
        let expected: Vec<u8> = match is_matrix {
            true => values
                .iter()
                .flat_map(|&v| round(v).to_le_bytes())
                .collect(),
            false => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        assert_eq!(tensor.data(), expected, "{name}");
        assert_eq!(
            tensor.dtype() == safetensors::Dtype::F16,
            is_matrix,
            "{name}"
        );
        let [read, of_torch] = [&file, &torch].map(|file| file.floats(name).unwrap());
        assert_eq!(read, of_torch, "{name}");
    }
}

#[test]
fn a_weight_that_f16_does_not_have_is_refused_by_its_name() {
    let folder = TempDir::new().unwrap();
    let [own, half] = ["own.safetensors", "half.safetensors"].map(|name| folder.path().join(name));
    let plan = plan(3, 3);
    let (mut state, _) = load(&plan, &network("monai"));
    let stem = plan.parameters().remove(0);
    state.parameters[stem.range().start] = -70_000.0;
    state.write(&plan, &own).unwrap();
    let error = convert_to_f16(&own, &half).unwrap_err().to_string();
    let expected = format!("`{}` holds -70000", stem.torchvision);
    assert!(error.contains(&expected), "{error}");
    assert!(!half.exists());
}

#[test]
fn a_converted_file_is_the_same_network_with_the_same_notes() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().join("own.safetensors");
    let file = network("monai");
    let plan = plan(3, 3);
    let (state, _) = load(&plan, &file);
    state.write_with(&plan, &own, &notes()).unwrap();
    let mut from = own;
    for name in ["1.pth", "2.safetensors", "3.bin", "4.pt"] {
        let to = folder.path().join(name);
        let report = convert(&from, &to).unwrap();
        assert!(report.left_over.is_empty(), "{report}");
        let file = TensorFile::read(&to).unwrap();
        assert_eq!(file.found().is_some(), name != "2.safetensors");
        assert_eq!(Notes::of(&file).unwrap(), notes(), "{name}");
        assert!(State::read(&plan, &to).unwrap() == state, "{name}");
        let names: Vec<_> = plan
            .parameters()
            .into_iter()
            .map(|own| own.torchvision)
            .collect();
        let found = file.names();
        assert!(names.iter().all(|name| found.contains(name)));
        from = to;
    }
    let error = convert(&from, folder.path().join("5.onnx"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("5.onnx") && error.contains(".safetensors"),
        "{error}"
    );
}

#[test]
fn networks_of_all_libraries_are_written_under_torchvisions_names() {
    // Kept, so that `scripts/golden_weights.py check` can hand them to torchvision.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("converted");
    fs::create_dir_all(&folder).unwrap();
    for name in [
        "torchvision",
        "torchvision_2017",
        "timm",
        "monai",
        "chexnet",
        "torchxrayvision",
    ] {
        let to = folder.join(format!("{name}.pth"));
        convert(golden("networks").join(format!("{name}.pth")), &to).unwrap();
        let plan = plan(if name == "torchxrayvision" { 1 } else { 3 }, 3);
        let written = TensorFile::read(&to).unwrap();
        let names: Vec<_> = plan
            .parameters()
            .into_iter()
            .map(|own| own.torchvision)
            .collect();
        assert_eq!(written.names(), names, "{name}");
        let (state, _) = load(&plan, &network(name));
        assert!(State::read(&plan, &to).unwrap() == state, "{name}");
    }
}

#[test]
fn notes_that_make_no_sense_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("noted.safetensors");
    for (note, value, said) in [
        (
            "densenet.normalization",
            r#"{"mean":[0.5],"std":[]}"#,
            "1 means and 0 standard",
        ),
        (
            "densenet.normalization",
            r#"{"mean":[0.5],"std":[0.0]}"#,
            "0 is not a standard",
        ),
        (
            "densenet.normalization",
            r#"{"mean":[0.5]}"#,
            "missing field `std`",
        ),
        (
            "densenet.thresholds",
            "[0.5, 1.5]",
            "1.5 is not a probability",
        ),
        ("densenet.thresholds", r#"[0.5, "b"]"#, "invalid type"),
        ("densenet.thresholds", "[0.5]", "1 numbers for 2 classes"),
        ("densenet.classes", "{}", "invalid type"),
    ] {
        let mut lines = BTreeMap::from([("densenet.classes".into(), r#"["a","b"]"#.into())]);
        lines.insert(note.to_string(), value.to_string());
        TensorFile::write(&path, [NamedTensor::new("a", [1], &[0.0])], lines).unwrap();
        let error = Notes::of(&TensorFile::read(&path).unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains(note) && error.contains(said), "{error}");
    }
}

#[test]
fn a_copy_has_the_notes_that_it_is_given_and_not_the_files_own() {
    let folder = TempDir::new().unwrap();
    let [own, to] = ["own.safetensors", "to.safetensors"].map(|name| folder.path().join(name));
    let plan = plan(3, 3);
    let (state, _) = load(&plan, &network("monai"));
    state.write_with(&plan, &own, &notes()).unwrap();
    let file = TensorFile::read(&own).unwrap();
    copy(&file, &plan, &to, &Notes::default(), []).unwrap();
    let copied = Notes::of(&TensorFile::read(&to).unwrap()).unwrap();
    assert_eq!(copied, Notes::default());
}

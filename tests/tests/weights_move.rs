//! Weights move between files and models: whole, under torchvision's names, or with an error
//! that says what is wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use densenet_runtime::Network;
use densenet_runtime::plan::{BlockSpec, Plan, Ratio, Spec, StemKind};
use densenet_runtime::weights::{NamedTensor, State, TensorFile, Unexpected, WeightsError};
use densenet_tests::networks::{Bc, Plain};
use dfdx::nn::{BuildModule, NumParams};
use dfdx::prelude::{AsArray, BroadcastTo, Cpu, Tensor, ZerosTensor};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

/// A state in which every number is another, all of them exact in 16 bits, and no variance is
/// negative.
fn numbered(plan: &Plan) -> State {
    let number = |index: usize| (index % 2048) as f32 / 1024.0;
    let parameters = 0..plan.parameter_count();
    State {
        parameters: parameters.map(|index| number(index) - 1.0).collect(),
        running: (0..plan.running_count()).map(number).collect(),
    }
}

/// A file of the network's tensors, each under a given name and with a given shape.
fn file_with(
    folder: &TempDir,
    plan: &Plan,
    change: impl Fn(&str, Vec<usize>) -> Option<(String, Vec<usize>)>,
) -> PathBuf {
    let state = numbered(plan);
    let path = folder.path().join("changed.safetensors");
    let parameters = plan.parameters();
    let tensors = parameters.iter().filter_map(|parameter| {
        let (name, shape) = change(&parameter.torchvision, parameter.shape.clone())?;
        let length = shape.iter().product();
        Some(NamedTensor::new(
            name,
            shape,
            &state.of_parameter(parameter)[..length],
        ))
    });
    TensorFile::write(&path, tensors, BTreeMap::new()).unwrap();
    path
}

#[test]
fn a_state_comes_back_from_a_file_as_it_was() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bc.safetensors");
    let state = numbered(&Bc::PLAN);
    state.write(&Bc::PLAN, &path).unwrap();
    assert_eq!(State::read(&Bc::PLAN, &path).unwrap(), state);
}

#[test]
fn a_state_goes_into_a_model_and_comes_out_as_it_was() {
    let mut model = Bc::build(&Cpu::default());
    let state = numbered(&Bc::PLAN);
    state.store_into(&mut model).unwrap();
    assert_eq!(State::of(&model), state);
    assert_eq!(state.parameters.len(), model.num_trainable_params());
}

#[test]
fn a_models_weights_come_back_from_a_file_or_it_stays_as_it_was() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bc.safetensors");
    let saved = Bc::build(&Cpu::seed_from_u64(1));
    saved.save_weights(&path).unwrap();
    let mut loaded = Bc::build(&Cpu::seed_from_u64(2));
    assert_ne!(State::of(&loaded), State::of(&saved));
    loaded.load_weights(&path).unwrap();
    assert_eq!(State::of(&loaded), State::of(&saved));

    let mut other = Plain::build(&Cpu::default());
    let before = State::of(&other);
    let error = other.load_weights(&path).unwrap_err();
    assert!(matches!(error, WeightsError::Misfit { .. }), "{error}");
    assert_eq!(State::of(&other), before);
}

#[test]
fn each_tensor_lands_in_its_field() {
    let mut model = Bc::build(&Cpu::default());
    let state = numbered(&Bc::PLAN);
    state.store_into(&mut model).unwrap();
    let parameters = Bc::PLAN.parameters();
    let values = |field: &str| {
        let parameter = parameters.iter().find(|p| p.field == field).unwrap();
        state.of_parameter(parameter).to_vec()
    };
    let layer = &model.block2.layer2;
    assert_eq!(
        layer.norm1.scale.as_vec(),
        values("block2.layer2.norm1.scale")
    );
    assert_eq!(
        layer.norm2.running_var.as_vec(),
        values("block2.layer2.norm2.running_var")
    );
    assert_eq!(
        layer.conv2.weight.as_vec(),
        values("block2.layer2.conv2.weight")
    );
    assert_eq!(
        model.transition1.norm.running_mean.as_vec(),
        values("transition1.norm.running_mean")
    );
    assert_eq!(
        model.classifier.bias.array().to_vec(),
        values("classifier.bias")
    );
}

#[test]
fn old_torchvision_names_and_counters_are_understood() {
    let folder = TempDir::new().unwrap();
    let old = |name: &str| {
        let mut old = name.to_string();
        for module in ["norm", "conv"] {
            for index in [1, 2] {
                let new = format!(".{module}{index}.");
                if name.contains(".denselayer") {
                    old = old.replace(&new, &format!(".{module}.{index}."));
                }
            }
        }
        old
    };
    let path = file_with(&folder, &Bc::PLAN, |name, shape| Some((old(name), shape)));
    let names = TensorFile::read(&path).unwrap().names();
    assert!(names.contains(&"features.denseblock1.denselayer1.norm.1.weight".to_string()));
    assert_eq!(State::read(&Bc::PLAN, &path).unwrap(), numbered(&Bc::PLAN));

    // A counter as PyTorch writes it: a number without dimensions, i64.
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let count = 7i64.to_le_bytes();
    let counter = TensorView::new(Dtype::I64, vec![], &count).unwrap();
    let mut tensors = file.tensors();
    tensors.push(("features.norm4.num_batches_tracked".into(), counter));
    let with_counter = folder.path().join("counter.safetensors");
    safetensors::serialize_to_file(tensors, None, &with_counter).unwrap();
    assert_eq!(
        State::read(&Bc::PLAN, &with_counter).unwrap(),
        numbered(&Bc::PLAN)
    );
}

#[test]
fn a_prefix_that_all_tensors_share_is_passed_over() {
    let folder = TempDir::new().unwrap();
    for prefix in [
        // DataParallel and DistributedDataParallel, torch.compile, Lightning, and several at once.
        "module.",
        "_orig_mod.",
        "model.",
        "module._orig_mod.net.",
    ] {
        let path = file_with(&folder, &Bc::PLAN, |name, shape| {
            Some((format!("{prefix}{name}"), shape))
        });
        assert_eq!(State::read(&Bc::PLAN, &path).unwrap(), numbered(&Bc::PLAN));
        // With one that has not, the file is of something else, and the names are the file's.
        let path = file_with(&folder, &Bc::PLAN, |name, shape| match name {
            "classifier.bias" => Some((name.into(), shape)),
            _ => Some((format!("{prefix}{name}"), shape)),
        });
        let message = State::read(&Bc::PLAN, &path).unwrap_err().to_string();
        assert!(
            message.contains("missing (1): classifier.bias"),
            "{message}"
        );
        assert!(
            message.contains("unexpected (1): classifier.bias"),
            "{message}"
        );
    }
}

#[test]
fn an_averaged_model_of_pytorch_is_understood() {
    let folder = TempDir::new().unwrap();
    let path = file_with(&folder, &Bc::PLAN, |name, shape| {
        Some((format!("module.{name}"), shape))
    });
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let count = 5i64.to_le_bytes();
    let counter = || TensorView::new(Dtype::I64, vec![], &count).unwrap();
    let mut tensors = file.tensors();
    tensors.push(("n_averaged".into(), counter()));
    tensors.push((
        "module.features.norm5.num_batches_tracked".into(),
        counter(),
    ));
    let averaged = folder.path().join("ema.safetensors");
    safetensors::serialize_to_file(tensors, None, &averaged).unwrap();
    assert_eq!(
        State::read(&Bc::PLAN, &averaged).unwrap(),
        numbered(&Bc::PLAN)
    );
}

#[test]
fn a_network_of_any_number_of_blocks_has_torchvisions_names() {
    // Of torchvision's own networks (`scripts/reference/torchvision_names.py`).
    let all = include_str!("../golden/torchvision_names.txt");
    for (blocks, layers) in [(1, 2), (3, 1), (4, 1), (5, 1)] {
        let spec = Spec {
            blocks: vec![BlockSpec { layers, growth: 4 }; blocks],
            theta: Ratio::new(1, 2),
            bottleneck: Some(4),
            stem: StemKind::ImageNet,
            init: 8,
            input: [3, 256, 256],
            classes: 3,
            dropout: 0.0,
        };
        let plan = spec.plan().unwrap();
        let mut ours: Vec<_> = plan
            .parameters()
            .iter()
            .map(|p| format!("{} {:?}", p.torchvision, p.shape))
            .collect();
        ours.sort();
        let mut theirs: Vec<_> = all
            .lines()
            .filter_map(|line| line.strip_prefix(&format!("{blocks}: ")))
            .collect();
        theirs.sort();
        assert_eq!(ours, theirs);
    }
}

#[test]
fn a_file_from_before_the_last_norm_had_torchvisions_name_is_read() {
    let folder = TempDir::new().unwrap();
    let path = file_with(&folder, &Bc::PLAN, |name, shape| {
        let last = format!("norm{}", Bc::PLAN.blocks().len() + 1);
        Some((
            name.replace("features.norm5", &format!("features.{last}")),
            shape,
        ))
    });
    assert_eq!(State::read(&Bc::PLAN, &path).unwrap(), numbered(&Bc::PLAN));
}

#[test]
fn a_file_called_as_pytorchs_is_one_and_is_read_whatever_it_is_called() {
    let folder = TempDir::new().unwrap();
    let state = numbered(&Bc::PLAN);
    for name in ["weights.pth", "weights.PT", "pytorch_model.bin"] {
        let path = folder.path().join(name);
        state.write(&Bc::PLAN, &path).unwrap();
        assert!(TensorFile::read(&path).unwrap().found().is_some(), "{name}");
        let other = folder.path().join("weights.safetensors");
        fs::rename(&path, &other).unwrap();
        assert_eq!(State::read(&Bc::PLAN, &other).unwrap(), state);
    }
}

#[test]
fn a_file_that_starts_as_pytorchs_and_is_not_is_refused_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("densenet201.pth");
    for start in [
        &b"PK\x03\x04archive"[..],
        b"\x80\x02\x8a\x0al\xfc",
        b"\x80\x05",
    ] {
        fs::write(&path, start).unwrap();
        let error = State::read(&Bc::PLAN, &path).unwrap_err().to_string();
        assert!(
            error.contains("densenet201.pth cannot be read as a PyTorch file"),
            "{error}"
        );
        assert!(error.ends_with("copy or download it again"), "{error}");
    }
}

#[test]
fn half_precision_files_are_read() {
    let folder = TempDir::new().unwrap();
    // Exact in both formats: bfloat16 keeps 8 bits.
    let mut state = numbered(&Bc::PLAN);
    for value in state.parameters.iter_mut().chain(&mut state.running) {
        *value = (*value * 64.0).round() / 64.0;
    }
    type Encode = fn(f32) -> [u8; 2];
    let encodings: [(Dtype, Encode); 2] = [
        (Dtype::F16, |v| half::f16::from_f32(v).to_le_bytes()),
        (Dtype::BF16, |v| half::bf16::from_f32(v).to_le_bytes()),
    ];
    for (dtype, encode) in encodings {
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Bc::PLAN
            .parameters()
            .into_iter()
            .map(|parameter| {
                let values = state.of_parameter(&parameter).iter();
                let bytes = values.flat_map(|&value| encode(value)).collect();
                (parameter.torchvision, parameter.shape, bytes)
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(dtype, shape.clone(), bytes).unwrap();
            (name.as_str(), view)
        });
        let path = folder.path().join("half.safetensors");
        safetensors::serialize_to_file(views, None, &path).unwrap();
        assert_eq!(State::read(&Bc::PLAN, &path).unwrap(), state, "{dtype}");
    }
}

#[test]
fn everything_that_does_not_fit_is_reported_at_once() {
    let folder = TempDir::new().unwrap();
    let path = file_with(&folder, &Bc::PLAN, |name, shape| match name {
        "features.conv0.weight" => None,
        "classifier.bias" => Some(("classifier.offset".into(), shape)),
        "classifier.weight" => Some((name.into(), vec![5, shape[1]])),
        _ => Some((name.into(), shape)),
    });
    let error = State::read(&Bc::PLAN, &path).unwrap_err();
    let path = path.display();
    let features = Bc::PLAN.features();
    assert_eq!(
        error.to_string(),
        format!(
            "{path} does not fit the network: missing (2): features.conv0.weight, classifier.bias; \
             unexpected (1): classifier.offset; of the wrong shape (1): classifier.weight \
             (found [5, {features}], expected [10, {features}])"
        )
    );
}

#[test]
fn a_file_of_another_network_is_refused_in_a_few_lines() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("plain.safetensors");
    numbered(&Plain::PLAN).write(&Plain::PLAN, &path).unwrap();
    let error = State::read(&Bc::PLAN, &path).unwrap_err();
    assert!(error.to_string().len() < 2000, "{error}");
    let WeightsError::Misfit { misfit, .. } = error else {
        panic!("{error}");
    };
    // All are listed for a program, if not printed for a person.
    assert!(misfit.missing.len() > 8, "{misfit}");
}

#[test]
fn numbers_that_no_network_has_are_refused_with_the_tensors_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("numbers.safetensors");
    let refusal = |name: &str, value: f32| {
        let mut state = numbered(&Bc::PLAN);
        let parameters = Bc::PLAN.parameters();
        let parameter = parameters.iter().find(|p| p.torchvision == name).unwrap();
        let arena = if parameter.role.is_trainable() {
            &mut state.parameters
        } else {
            &mut state.running
        };
        arena[parameter.range()][1] = value;
        state.write(&Bc::PLAN, &path).unwrap();
        State::read(&Bc::PLAN, &path).map_err(|error| error.to_string())
    };
    for (name, value, said) in [
        ("features.conv0.weight", f32::NAN, "holds NaN (element 1)"),
        ("classifier.bias", f32::INFINITY, "holds inf (element 1)"),
        (
            "features.denseblock1.denselayer1.norm1.running_mean",
            f32::NAN,
            "holds NaN",
        ),
        (
            "features.denseblock1.denselayer1.norm1.running_var",
            -0.25,
            "holds -0.25 (element 1); a variance must not be negative",
        ),
    ] {
        let message = refusal(name, value).unwrap_err();
        assert!(message.contains(&format!("`{name}`")), "{message}");
        assert!(message.contains(said), "{message}");
    }
    refusal("features.denseblock1.denselayer1.norm1.running_mean", -0.25).unwrap();
}

#[test]
fn unexpected_tensors_are_refused_or_ignored_as_asked() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("more.safetensors");
    let state = numbered(&Bc::PLAN);
    let parameters = Bc::PLAN.parameters();
    let tensors = parameters.iter().map(|parameter| {
        let values = state.of_parameter(parameter);
        NamedTensor::new(&parameter.torchvision, parameter.shape.as_slice(), values)
    });
    let more = NamedTensor::new("losses", [2], &[1.0, 0.5]);
    TensorFile::write(&path, tensors.chain([more]), BTreeMap::new()).unwrap();

    let error = State::read(&Bc::PLAN, &path).unwrap_err().to_string();
    assert!(error.ends_with("unexpected (1): losses"), "{error}");
    let file = TensorFile::read(&path).unwrap();
    let read = State::from_file(&Bc::PLAN, &file, Unexpected::Ignore).unwrap();
    assert_eq!(read, state);
}

#[test]
fn damaged_and_absent_files_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("weights.safetensors");
    let error = State::read(&Bc::PLAN, &path).unwrap_err();
    assert!(matches!(error, WeightsError::Read { .. }), "{error}");
    assert!(error.to_string().contains("weights.safetensors"), "{error}");

    numbered(&Bc::PLAN).write(&Bc::PLAN, &path).unwrap();
    let whole = fs::read(&path).unwrap();
    // Cut anywhere, a file is never taken for whole, and nothing panics.
    for length in [0, 4, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = State::read(&Bc::PLAN, &path).unwrap_err();
        assert!(matches!(error, WeightsError::Corrupt { .. }), "{error}");
    }
    fs::write(&path, b"this is not a file of weights at all").unwrap();
    let error = State::read(&Bc::PLAN, &path).unwrap_err().to_string();
    assert!(
        error.contains("damaged, or not a file of weights"),
        "{error}"
    );
}

#[test]
fn a_file_of_integers_is_no_file_of_weights() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("integers.safetensors");
    let bytes = vec![0; Plain::PLAN.parameter_count() * 8];
    let parameters = Plain::PLAN.parameters();
    let views = parameters.iter().map(|parameter| {
        let bytes = &bytes[..parameter.len() * 8];
        let view = TensorView::new(Dtype::I64, parameter.shape.clone(), bytes).unwrap();
        (parameter.torchvision.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let error = State::read(&Plain::PLAN, &path).unwrap_err().to_string();
    assert!(
        error.starts_with("tensor `features.conv0.weight` in ")
            && error.ends_with(" is I64; expected F64, F32, F16 or BF16"),
        "{error}"
    );
}

#[test]
fn a_failed_write_leaves_the_file_and_its_folder_as_they_were() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("weights.safetensors");
    let state = numbered(&Bc::PLAN);
    state.write(&Bc::PLAN, &path).unwrap();

    // A shape that does not go with its elements.
    let wrong = NamedTensor::new("a", [3], &[1.0, 2.0]);
    let error = TensorFile::write(&path, [wrong], BTreeMap::new()).unwrap_err();
    assert!(matches!(error, WeightsError::Encode { .. }), "{error}");
    assert_eq!(State::read(&Bc::PLAN, &path).unwrap(), state);

    // A folder in the file's place: the rename fails at the very end.
    let occupied = folder.path().join("occupied");
    fs::create_dir_all(occupied.join("inside")).unwrap();
    let error = state.write(&Bc::PLAN, &occupied).unwrap_err();
    assert!(matches!(error, WeightsError::Write { .. }), "{error}");
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["occupied", "weights.safetensors"]);
}

#[test]
fn a_state_of_another_network_is_refused_and_changes_nothing() {
    let mut model = Bc::build(&Cpu::default());
    let before = State::of(&model);
    let error = numbered(&Plain::PLAN).store_into(&mut model).unwrap_err();
    assert!(matches!(error, WeightsError::Length { .. }), "{error}");
    assert_eq!(State::of(&model), before);

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("weights.safetensors");
    let error = before.write(&Plain::PLAN, &path).unwrap_err();
    assert!(matches!(error, WeightsError::Length { .. }), "{error}");
    assert!(!path.exists());
}

#[test]
fn a_model_with_a_view_for_a_parameter_is_refused() {
    let mut model = Bc::build(&Cpu::default());
    let zero: Tensor<dfdx::shapes::Rank0, f32, Cpu> = Cpu::default().zeros();
    model.classifier.bias = zero.broadcast();
    let error = numbered(&Bc::PLAN).store_into(&mut model).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a tensor of shape [10] in the model is a broadcast or permuted view; assign one with \
         memory of its own"
    );
}

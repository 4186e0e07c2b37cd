//! Networks of all libraries.

use std::collections::BTreeMap;
use std::fs;

use densenet_runtime::Pixels;
use densenet_runtime::cpu::{Frozen, FrozenOptions};
use densenet_runtime::plan::Plan;
use densenet_runtime::weights::{
    LoadOptions, NamedTensor, State, TensorFile, Unexpected, WeightsError, plan_of,
};
use tempfile::TempDir;

use crate::containers::container;
use crate::{assert_close, golden, load, logits, network, plan};

#[test]
fn each_librarys_network_is_told_by_its_shapes_and_has_the_librarys_outputs() {
    let text = fs::read_to_string(golden("logits.json")).unwrap();
    let expected: BTreeMap<String, Vec<f32>> = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 6);
    for (name, expected) in &expected {
        let file = network(name);
        let told = plan_of(&file, Some([32, 32])).unwrap();
        let channels = if name == "torchxrayvision" { 1 } else { 3 };
        assert_eq!(told, plan(channels, 3), "{name}");
        let (state, report) = load(&told, &file);
        assert_eq!(report.used.len(), told.parameters().len(), "{name}");
        assert!(report.missing.is_empty(), "{report}");
        assert_close(&logits(&told, &state), expected, name);
        // The same if left-over tensors are refused.
        let strict = State::from_file(&told, &file, Unexpected::Refuse).unwrap();
        assert!(strict == state, "{name}");
    }
}

#[test]
fn a_report_says_what_was_used_and_what_was_left() {
    let said = |name: &str| {
        let file = network(name);
        let channels = if name.starts_with("torchx") { 1 } else { 3 };
        let report = load(&plan(channels, 3), &file).1.to_string();
        let (_, said) = report.split_once(".pth: ").unwrap();
        said.to_string()
    };
    assert_eq!(
        said("torchvision"),
        "the state dict that the file is; 46 tensors used"
    );
    assert_eq!(
        said("chexnet"),
        "the state dict under `state_dict`; 46 tensors used (their names start with \
         `module.densenet121.`)"
    );
    assert_eq!(
        said("torchxrayvision"),
        "the state dict that the file is; 46 tensors used; left over (1): op_threshs"
    );
    assert_eq!(
        said("torchxrayvision_module"),
        "the module that the file is; 46 tensors used; left over (1): op_threshs"
    );
}

#[test]
fn a_stem_for_colour_becomes_one_for_grey_and_back_and_it_is_said() {
    let file = network("torchvision");
    let (rgb, _) = load(&plan(3, 3), &file);
    let (grey, report) = load(&plan(1, 3), &file);
    assert_eq!(report.stem, Some([3, 1]));
    let said = report.to_string();
    assert!(
        said.ends_with("; the stem's 3 channels were summed into one"),
        "{said}"
    );
    // On a grey picture it is the network for colour with three equal channels.
    let image: Vec<f32> = (0..32 * 32)
        .map(|index| (index * 37 % 101) as f32 / 50.0 - 1.0)
        .collect();
    let infer = |plan: &Plan, state: &State, image: &[f32]| {
        let options = FrozenOptions::for_batch(1);
        let mut frozen = Frozen::new(plan, &state.parameters, &state.running, options).unwrap();
        frozen.infer(Pixels::Nchw(image), 1).unwrap().to_vec()
    };
    let expected = infer(&plan(3, 3), &rgb, &image.repeat(3));
    assert_close(&infer(&plan(1, 3), &grey, &image), &expected, "grey");

    let file = network("torchxrayvision");
    let (grey, _) = load(&plan(1, 3), &file);
    let (rgb, report) = load(&plan(3, 3), &file);
    let said = report.to_string();
    assert!(
        said.contains("; the stem's channel was divided among 3"),
        "{said}"
    );
    let expected = infer(&plan(1, 3), &grey, &image);
    assert_close(
        &infer(&plan(3, 3), &rgb, &image.repeat(3)),
        &expected,
        "colour",
    );

    // Not without a report, nor for other channels.
    let error = State::from_file(&plan(1, 3), &network("torchvision"), Unexpected::Ignore);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("found [8, 3, 7, 7], expected [8, 1, 7, 7]")
    );
    let error = State::load(
        &plan(4, 3),
        &network("torchvision"),
        &LoadOptions::default(),
    );
    assert!(matches!(error, Err(WeightsError::Misfit { .. })));
}

#[test]
fn other_classes_are_refused_with_advice_and_the_features_alone_are_taken() {
    let file = network("chexnet");
    let plan = plan(3, 5);
    let error = State::load(&plan, &file, &LoadOptions::default()).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("module.densenet121.classifier.0.weight (found [3, 12], expected [5, 12])"),
        "{said}"
    );
    assert!(
        said.contains("load the features only (`features_only`, `--features-only`)"),
        "{said}"
    );

    let options = LoadOptions {
        features_only: true,
        seed: 3,
        ..LoadOptions::default()
    };
    let (state, report) = State::load(&plan, &file, &options).unwrap();
    assert_eq!(report.used.len(), 44);
    let said = report.to_string();
    assert!(
        said.ends_with(
            "; new, with initial values (2): classifier.weight, classifier.bias; \
             left over (2): module.densenet121.classifier.0.bias, \
             module.densenet121.classifier.0.weight"
        ),
        "{said}"
    );
    let head = plan.tensors().head.weight.start;
    let initial = State::initial(&plan, 3);
    assert_eq!(state.parameters[head..], initial.parameters[head..]);
    let (whole, _) = load(&self::plan(3, 3), &file);
    assert_eq!(state.parameters[..head], whole.parameters[..head]);
    assert_eq!(state.running, whole.running);
}

#[test]
fn a_missing_tensor_is_an_error_even_where_only_features_are_wanted() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("part.pth");
    let file = network("torchvision");
    let tensors: Vec<_> = file
        .names()
        .into_iter()
        .filter(|name| !name.starts_with("classifier") && !name.ends_with("transition1.norm.bias"))
        .filter_map(|name| Some((file.shape(&name)?.to_vec(), file.floats(&name).ok()?, name)))
        .collect();
    let named = tensors
        .iter()
        .map(|(shape, values, name)| NamedTensor::new(name, shape.as_slice(), values));
    TensorFile::write_torch(&path, named, BTreeMap::new()).unwrap();
    let options = LoadOptions {
        features_only: true,
        ..LoadOptions::default()
    };
    let file = TensorFile::read(&path).unwrap();
    let error = State::load(&plan(3, 3), &file, &options)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("missing (1): features.transition1.norm.bias"),
        "{error}"
    );
    let error = State::load(&plan(3, 3), &file, &LoadOptions::default()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("missing (3): "), "{error}");
    assert!(!error.contains("only the classifier differs"), "{error}");
}

#[test]
fn what_is_not_a_densenet_is_not_told_by_its_shapes() {
    let error = plan_of(&container("zip.pth"), None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`features.conv0.weight` is missing"),
        "{error}"
    );
    for side in [4, 1 << 20] {
        let error = plan_of(&network("torchvision"), Some([side; 2])).unwrap_err();
        assert!(matches!(error, WeightsError::Size { .. }), "{error}");
        assert!(error.to_string().contains("--input"), "{error}");
    }
    // Of the usual size where none is given.
    let told = plan_of(&network("torchvision"), None).unwrap();
    assert_eq!((told.stem().height, told.stem().width), (224, 224));
}

//! Networks as ONNX agree with PyTorch and with the frozen form when rten runs them, a runtime that
//! shares nothing with either: every kind of network, folded and plain, in f32 and f16.
//! `scripts/onnx_check.py` checks ONNX Runtime and OpenVINO.

use std::collections::BTreeMap;
use std::fs;

use densenet_runtime::cpu::{Frozen, FrozenOptions};
use densenet_runtime::plan::Plan;
use densenet_runtime::weights::onnx::{self, ExportOptions, Output};
use densenet_runtime::weights::{Notes, State};
use densenet_runtime::{Network, Normalization, Pixels};
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::each_network;
use densenet_tests::golden::Golden;
use densenet_tests::networks::{Bc, Case, ImageNetBc};
use half::f16;
use rten::{Dimension, Model, ModelOptions, OpRegistry, RegisterOp, Value, op_types};
use tempfile::TempDir;

/// How far logits of f16 weights may be from those of f32.
const HALVES: f64 = 5e-3;

fn bytes(plan: &Plan, state: &State, options: &ExportOptions) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("network.onnx");
    onnx::write(plan, state, &path, options).unwrap();
    fs::read(path).unwrap()
}

/// The file's outputs for images. rten computes in f32, whatever the type of the weights.
fn infer(plan: &Plan, model: &Model, images: &[f32]) -> Vec<f32> {
    let stem = plan.stem();
    let image = [stem.channels, stem.height, stem.width];
    let batch = images.len() / image.iter().product::<usize>();
    let shape = [batch, image[0], image[1], image[2]];
    let images = Value::from_shape(&shape, images.to_vec()).unwrap();
    let found = model.run_one(images.into(), None).unwrap();
    let (shape, found) = found.into_shape_vec::<f32, 2>().unwrap();
    assert_eq!(shape, [batch, plan.classes()]);
    found
}

/// The operators in exported files. Files with f16 tensors also cast the images and the output.
const OPERATORS: [&dyn RegisterOp; 11] = [
    &op_types::AveragePool,
    &op_types::BatchNormalization,
    &op_types::Concat,
    &op_types::Conv,
    &op_types::Flatten,
    &op_types::Gemm,
    &op_types::GlobalAveragePool,
    &op_types::MaxPool,
    &op_types::Relu,
    &op_types::Sigmoid,
    &op_types::Softmax,
];

/// Runs a file, which is refused if it has any other operator.
fn run(plan: &Plan, state: &State, options: &ExportOptions, images: &[f32]) -> Vec<f32> {
    let mut operators = OPERATORS.to_vec();
    if options.f16 {
        operators.push(&op_types::Cast);
    }
    let model = ModelOptions::with_ops(OpRegistry::with_ops(&operators))
        .load(bytes(plan, state, options))
        .unwrap();
    infer(plan, &model, images)
}

#[test]
fn a_file_with_another_operator_would_be_refused() {
    let file = bytes(
        &Bc::PLAN,
        &State::initial(&Bc::PLAN, 1),
        &ExportOptions::default(),
    );
    let but_one = OpRegistry::with_ops(&OPERATORS[1..]);
    assert!(ModelOptions::with_ops(but_one).load(file).is_err());
}

fn frozen(plan: &Plan, state: &State, images: &[f32]) -> Vec<f32> {
    let stem = plan.stem();
    let batch = images.len() / (stem.channels * stem.height * stem.width);
    let options = FrozenOptions::for_batch(batch);
    let mut frozen = Frozen::new(plan, &state.parameters, &state.running, options).unwrap();
    frozen.infer(Pixels::Nchw(images), batch).unwrap().to_vec()
}

fn check<N: Case>() {
    let golden = Golden::open(N::GOLDEN, &N::PLAN);
    let (state, images) = (golden.start(), golden.images());
    let mut compare = Comparison::within(TOLERANCE);
    for fold in [false, true] {
        let options = ExportOptions {
            fold,
            ..ExportOptions::default()
        };
        let found = run(&N::PLAN, &state, &options, &images);
        let expected = golden.tensor("logits.eval");
        compare.add(format!("folded {fold}, PyTorch's"), &found, &expected);
        let expected = frozen(&N::PLAN, &state, &images);
        compare.add(format!("folded {fold}, frozen"), &found, &expected);
    }
    compare.assert(N::GOLDEN);
}

each_network!(check);

fn check_halves<N: Case>() {
    let golden = Golden::open(N::GOLDEN, &N::PLAN);
    let (state, images) = (golden.start(), golden.images());
    let options = |fold| ExportOptions {
        fold,
        f16: true,
        ..ExportOptions::default()
    };
    let [plain, folded] = [false, true].map(|fold| run(&N::PLAN, &state, &options(fold), &images));
    let rounded = |values: &[f32]| {
        values
            .iter()
            .map(|&own| f16::from_f32(own).to_f32())
            .collect()
    };
    let rounded = State {
        parameters: rounded(&state.parameters),
        running: rounded(&state.running),
    };
    let mut exact = Comparison::within(TOLERANCE);
    let expected = frozen(&N::PLAN, &rounded, &images);
    exact.add("of rounded weights", &plain, &expected);
    exact.assert(N::GOLDEN);
    let mut near = Comparison::within(HALVES);
    near.add("plain", &plain, &golden.tensor("logits.eval"));
    near.add("folded", &folded, &golden.tensor("logits.eval"));
    near.assert(N::GOLDEN);
}

each_network!(check_halves:
    bottleneck_in_f16 Bottleneck,
    compressed_in_f16 Compressed,
    imagenet_bc_in_f16 ImageNetBc,
);

#[test]
fn probabilities_are_those_of_the_logits() {
    let golden = Golden::open(Bc::GOLDEN, &Bc::PLAN);
    let (state, images) = (golden.start(), golden.images());
    let logits = golden.tensor("logits.eval");
    let sigmoid = logits.iter().map(|own| 1.0 / (1.0 + (-own).exp()));
    let softmax = logits.chunks_exact(Bc::PLAN.classes()).flat_map(|logits| {
        let powers: Vec<f64> = logits.iter().map(|&own| f64::from(own).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(move |own| (own / sum) as f32)
    });
    let mut compare = Comparison::within(TOLERANCE);
    for (output, expected) in [
        (Output::Sigmoid, sigmoid.collect::<Vec<_>>()),
        (Output::Softmax, softmax.collect()),
    ] {
        let options = ExportOptions {
            output,
            ..ExportOptions::default()
        };
        let found = run(&Bc::PLAN, &state, &options, &images);
        compare.add(format!("{output:?}"), &found, &expected);
    }
    compare.assert(Bc::GOLDEN);
}

#[test]
fn a_batch_is_of_any_size() {
    let golden = Golden::open(Bc::GOLDEN, &Bc::PLAN);
    let model = Model::load(bytes(&Bc::PLAN, &golden.start(), &ExportOptions::default())).unwrap();
    let images = golden.images();
    let mut found = Vec::new();
    for image in images.chunks_exact(3 * 13 * 13) {
        found.extend(infer(&Bc::PLAN, &model, image));
    }
    let mut compare = Comparison::within(TOLERANCE);
    compare.add("one by one", &found, &golden.tensor("logits.eval"));
    compare.assert(Bc::GOLDEN);
    let fixed = Dimension::Fixed;
    let batch = Dimension::Symbolic("batch".to_string());
    let shape = Some(vec![batch, fixed(3), fixed(13), fixed(13)]);
    assert!(model.input_shape(0) == shape, "{:?}", model.input_shape(0));
}

#[test]
fn names_are_those_of_torchvision_and_notes_are_metadata() {
    let plan = ImageNetBc::PLAN;
    let notes = Notes {
        classes: ["a", "b", "c", "d", "e", "f", "ğ"]
            .map(String::from)
            .to_vec(),
        normalization: Some(Normalization {
            mean: vec![0.5, 0.25, 0.75],
            std: vec![0.5, 1.5, 2.0],
        }),
        thresholds: Vec::new(),
    };
    let options = ExportOptions {
        notes,
        metadata: BTreeMap::from([("densenet.name".into(), "Small".into())]),
        ..ExportOptions::default()
    };
    let file = bytes(&plan, &State::initial(&plan, 1), &options);
    // As in the file.
    let model = ModelOptions::with_all_ops()
        .enable_optimization(false)
        .load(file)
        .unwrap();
    for parameter in plan.parameters() {
        let node = model.find_node(&parameter.torchvision).unwrap();
        let shape = model.node_info(node).unwrap().shape().unwrap();
        let expected: Vec<_> = parameter.shape.iter().map(|&side| side.into()).collect();
        assert!(shape == expected, "{}: {shape:?}", parameter.torchvision);
    }
    for module in [
        "features.conv0",
        "features.norm0",
        "features.relu0",
        "features.pool0",
        "features.denseblock2.denselayer2.relu2",
        "features.denseblock2.denselayer2.conv2",
        "features.transition3.pool",
        "features.norm5",
        "classifier",
        "images",
        "logits",
    ] {
        assert!(model.find_node(module).is_some(), "{module}");
    }
    let said = |key| model.metadata().get(key).unwrap_or_default();
    assert_eq!(said("densenet.classes"), r#"["a","b","c","d","e","f","ğ"]"#);
    assert_eq!(
        said("densenet.normalization"),
        r#"{"mean":[0.5,0.25,0.75],"std":[0.5,1.5,2.0]}"#
    );
    assert_eq!(said("densenet.name"), "Small");
    assert_eq!(model.metadata().get("densenet.thresholds"), None);
}

//! The `parity` example takes weights and a batch and writes the results of training on it.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use densenet_models::DenseNetBC100K12;
use densenet_runtime::Network;
use densenet_runtime::dfdx::nn::BuildModule;
use densenet_runtime::dfdx::tensor::Cpu;
use densenet_runtime::weights::{NamedTensor, State, TensorFile, Unexpected};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

fn parity(folder: &Path, model: &str) -> Output {
    support::command("parity", folder, &["--model", model])
        .args([
            "--weights",
            "in.safetensors",
            "--batch",
            "batch.safetensors",
        ])
        .args(["--steps", "2", "--lr", "0.1", "--out", "out.safetensors"])
        .output()
        .unwrap()
}

/// `images`, two of 3 x `side` x `side`, and `labels`.
fn write_batch(path: PathBuf, side: usize) {
    let pixels = (0..2 * 3 * side * side).map(|index| ((index * 7919) % 255) as f32 / 127.0 - 1.0);
    let images: Vec<u8> = pixels.flat_map(f32::to_le_bytes).collect();
    let labels: Vec<u8> = [3i64, 9].into_iter().flat_map(i64::to_le_bytes).collect();
    let tensors = [
        (
            "images",
            TensorView::new(Dtype::F32, vec![2, 3, side, side], &images).unwrap(),
        ),
        (
            "labels",
            TensorView::new(Dtype::I64, vec![2], &labels).unwrap(),
        ),
    ];
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
}

#[test]
fn losses_logits_gradients_and_the_final_state_are_written() {
    let folder = TempDir::new().unwrap();
    let plan = DenseNetBC100K12::PLAN;
    let start = State::of(&DenseNetBC100K12::build(&Cpu::default()));
    start
        .write(&plan, folder.path().join("in.safetensors"))
        .unwrap();
    write_batch(folder.path().join("batch.safetensors"), 32);
    support::said(parity(folder.path(), "cifar_bc_100_12"));

    let out = TensorFile::read(folder.path().join("out.safetensors")).unwrap();
    let losses = out.floats("losses").unwrap();
    assert_eq!(losses.len(), 2);
    assert!(losses[1] < losses[0], "{losses:?}");
    for logits in ["logits_before", "logits_after"] {
        assert_eq!(out.shape(logits), Some(&[2, 10][..]));
    }
    let end = State::from_file(&plan, &out, Unexpected::Ignore).unwrap();
    for parameter in plan.parameters() {
        let (from, to) = (start.of_parameter(&parameter), end.of_parameter(&parameter));
        assert_ne!(from, to, "{}", parameter.field);
        if parameter.role.is_trainable() {
            let gradient = format!("grad.{}", parameter.torchvision);
            assert_eq!(out.shape(&gradient), Some(parameter.shape.as_slice()));
        }
    }
    let others = out.names().len() - plan.parameters().len();
    let gradients = plan
        .parameters()
        .iter()
        .filter(|p| p.role.is_trainable())
        .count();
    assert_eq!(others, gradients + 3);
}

#[test]
fn a_batch_or_weights_of_another_network_are_refused() {
    let folder = TempDir::new().unwrap();
    let start = State::of(&DenseNetBC100K12::build(&Cpu::default()));
    let weights = folder.path().join("in.safetensors");
    start.write(&DenseNetBC100K12::PLAN, &weights).unwrap();
    write_batch(folder.path().join("batch.safetensors"), 16);

    assert_eq!(
        support::refusal(&parity(folder.path(), "cifar_bc_100_12")),
        "error: `images` in batch.safetensors has shape [2, 3, 16, 16]; the network and the 2 \
            labels need [2, 3, 32, 32]\n"
    );

    let nothing = NamedTensor::new("nothing", [1], &[0.0]);
    TensorFile::write(&weights, [nothing], BTreeMap::new()).unwrap();
    let message = support::refusal(&parity(folder.path(), "cifar_bc_100_12"));
    assert!(
        message.starts_with("error: in.safetensors does not fit the network: missing ("),
        "{message}"
    );
    assert!(!folder.path().join("out.safetensors").exists());
}

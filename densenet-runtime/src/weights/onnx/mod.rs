//! A trained network as an ONNX file, for ONNX Runtime, OpenVINO and other runtimes.
//!
//! The graph follows from the plan: one operator for each module, under torchvision's names; the
//! tensors have the names of its state dict. Its input is `images` (a batch of any size x channels x height
//! x width, f32, normalised) and its output `logits`, or `probabilities`. It has only common operators:
//! `Conv`, `BatchNormalization`, `Relu`, `Concat`, `MaxPool`, `AveragePool`, `GlobalAveragePool`,
//! `Flatten`, `Gemm`, for f16 `Cast`, and `Softmax` or `Sigmoid` on request.

mod graph;
mod proto;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use densenet_plan::Plan;

use self::graph::BeyondF16;
use self::proto::{Element, Message};
use super::{Notes, State, WeightsError};
use crate::files;

/// The version of the operators: the oldest one in which all of them have today's meaning. Every
/// runtime since 2022 reads it.
const OPSET: u64 = 17;
/// The version of the format that belongs to it.
const IR: u64 = 8;
/// The limit of protocol buffers: lengths are signed and have 32 bits.
const LIMIT: u64 = i32::MAX as u64;

/// How a network is written as ONNX.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExportOptions {
    /// Whether to fold each BN that follows a convolution into its weight and a bias: `norm0` of
    /// ImageNet's stem, and `norm2` of each layer with a bottleneck. A BN that reads a block's maps
    /// stays, as other layers read them, too.
    pub fold: bool,
    /// Whether tensors and computation are f16. Inputs and outputs stay f32.
    pub f16: bool,
    /// What it gives.
    pub output: Output,
    /// The notes of the weights: entries of the file's metadata, in JSON, as in other files
    /// (`densenet.classes`, `densenet.normalization`, `densenet.thresholds`). If the notes have no
    /// classes, those of the plan are written.
    pub notes: Notes,
    /// Other entries of the metadata, by their keys.
    pub metadata: BTreeMap<String, String>,
}

/// What a network gives for each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// `logits`.
    #[default]
    Logits,
    /// `probabilities` that sum to 1, if a picture has exactly one class.
    Softmax,
    /// `probabilities` of independent classes.
    Sigmoid,
}

impl ExportOptions {
    fn element(&self) -> Element {
        match self.f16 {
            true => Element::F16,
            false => Element::F32,
        }
    }

    /// The name of what the network gives.
    pub fn output_name(&self) -> &'static str {
        graph::output(self.output)
    }
}

/// Writes a trained network as ONNX: its inference form, operators of version 17. The same network and
/// options give the same bytes. The file is written completely or not at all.
///
/// ```
/// use densenet_runtime::prelude::*;
/// use densenet_runtime::weights::onnx::{self, ExportOptions};
/// use densenet_runtime::weights::{State, WeightsError};
///
/// fn export<N: Network>(model: &N) -> Result<(), WeightsError> {
///     let options = ExportOptions { fold: true, ..ExportOptions::default() };
///     onnx::write(&N::PLAN, &State::of(model), "pets.onnx", &options)
/// }
/// ```
///
/// # Errors
/// When the file is not called `.onnx` or cannot be written, the state belongs to another network, a number is beyond f16, or the file would reach 2 GiB, the limit of protocol buffers.
pub fn write(
    plan: &Plan,
    state: &State,
    path: impl AsRef<Path>,
    options: &ExportOptions,
) -> Result<(), WeightsError> {
    let path = path.as_ref();
    let extension = path.extension();
    if !extension.is_some_and(|own| own.eq_ignore_ascii_case("onnx")) {
        return Err(WeightsError::OnnxName {
            path: path.to_path_buf(),
        });
    }
    let bytes = encode(plan, state, path, options)?;
    files::replace(path, &bytes).map_err(|source| WeightsError::Write {
        path: path.to_path_buf(),
        source,
    })
}

/// The bytes of a file (`ModelProto`).
fn encode(
    plan: &Plan,
    state: &State,
    path: &Path,
    options: &ExportOptions,
) -> Result<Vec<u8>, WeightsError> {
    // Before anything of this size is made.
    let numbers = plan.parameter_count() as u64 + plan.running_count() as u64;
    check_size(numbers * options.element().size() as u64, path)?;
    state.check_lengths(plan.parameter_count(), plan.running_count())?;
    let graph = graph::graph(plan, state, options);
    let mut model = graph.map_err(|BeyondF16 { name, found }| WeightsError::BeyondF16 {
        path: path.to_path_buf(),
        name,
        found,
    })?;
    let mut before = Message::default();
    before.int(1, IR);
    before.text(2, "densenet-runtime");
    before.text(3, env!("CARGO_PKG_VERSION"));
    before.open(7, model.len());
    model.precede(before);
    let mut operators = Message::default();
    operators.text(1, "");
    operators.int(2, OPSET);
    model.message(8, &operators);
    let mut metadata = options.metadata.clone();
    metadata.extend(options.notes.lines_for(plan));
    for (key, value) in &metadata {
        let mut entry = Message::default();
        entry.text(1, key);
        entry.text(2, value);
        model.message(14, &entry);
    }
    check_size(model.len() as u64, path)?;
    Ok(model.into_bytes())
}

/// Refuses a file that no reader could read.
fn check_size(bytes: u64, path: &Path) -> Result<(), WeightsError> {
    match bytes <= LIMIT {
        true => Ok(()),
        false => Err(WeightsError::OnnxSize {
            path: path.to_path_buf(),
            bytes,
        }),
    }
}

//! Files of weights from one format into another.

use std::path::Path;

use densenet_plan::Plan;

use super::notes::HELD;
use super::{LoadOptions, LoadReport, Notes, State, TensorFile, WeightsError, plan_of};

/// Reads a file of weights in any format and under any library's names, and writes it under
/// torchvision's: as safetensors, or as a file for `torch.load` if its name ends in `.pth`, `.pt`
/// or `.bin`. The network follows from the shapes ([`plan_of`]). Classes, normalisation and
/// thresholds are kept, and so are other notes whose keys begin with `densenet.`.
///
/// ```no_run
/// # use densenet_runtime::{say, weights::{WeightsError, convert}};
/// # fn main() -> Result<(), WeightsError> {
/// let report = convert("chexnet.pth.tar", "chexnet.safetensors")?;
/// say!("{report}");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the file cannot be read or does not hold a DenseNet, or when the other has another extension or
/// cannot be written.
pub fn convert(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<LoadReport, WeightsError> {
    convert_to(from.as_ref(), to.as_ref(), false)
}

/// As [`convert`], with the weights of convolutions and of the classifier as f16, each rounded to the
/// nearest: half the bytes. BN's parameters and statistics and the classifier's bias stay f32. Readers of
/// such files compute in what they like; these are read into f32.
///
/// # Errors
/// As [`convert`], and when a weight is beyond 65504.
pub fn convert_to_f16(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
) -> Result<LoadReport, WeightsError> {
    convert_to(from.as_ref(), to.as_ref(), true)
}

fn convert_to(from: &Path, to: &Path, f16: bool) -> Result<LoadReport, WeightsError> {
    check_name(to)?;
    let file = TensorFile::read(from)?;
    let plan = plan_of(&file, None)?;
    write(&file, &plan, to, &Notes::of(&file)?, [], f16)
}

/// Writes the weights of a file to another, as [`convert`] does, with these notes in place of the
/// file's own. Its other notes whose keys begin with `densenet.` are kept, except for those that
/// `others`, each a key and a note, replace.
///
/// # Errors
/// As [`convert`], and when the file is of another network than the plan.
pub fn copy(
    file: &TensorFile,
    plan: &Plan,
    to: impl AsRef<Path>,
    notes: &Notes,
    others: impl IntoIterator<Item = (String, String)>,
) -> Result<LoadReport, WeightsError> {
    check_name(to.as_ref())?;
    write(file, plan, to.as_ref(), notes, others, false)
}

fn write(
    file: &TensorFile,
    plan: &Plan,
    to: &Path,
    notes: &Notes,
    others: impl IntoIterator<Item = (String, String)>,
    f16: bool,
) -> Result<LoadReport, WeightsError> {
    let (state, report) = State::load(plan, file, &LoadOptions::default())?;
    let mut lines = file.own_notes();
    lines.retain(|key, _| !HELD.contains(&key.as_str()));
    lines.extend(others);
    state.write_noted(plan, to, notes, lines, f16)?;
    Ok(report)
}

/// Refuses to write a file whose extension is not `.safetensors`, `.pth`, `.pt` or `.bin`.
///
/// # Errors
/// When it has another extension.
pub fn check_name(to: impl AsRef<Path>) -> Result<(), WeightsError> {
    let to = to.as_ref();
    let is_known = to.extension().is_some_and(|own| {
        let own = own.to_ascii_lowercase();
        own == "safetensors" || own == "pth" || own == "pt" || own == "bin"
    });
    if is_known {
        return Ok(());
    }
    Err(WeightsError::Extension {
        path: to.to_path_buf(),
    })
}

//! Files of weights from one format into another.

use std::path::Path;

use densenet_plan::Plan;

use super::{LoadOptions, Notes, Report, State, TensorFile, WeightsError, plan_of};

/// Reads a file of weights in any format and under anybody's names, and writes it under torchvision's:
/// safetensors, or a file for `torch.load` if it is to be called `.pth`, `.pt` or `.bin`. The network is
/// told by its shapes ([`plan_of`]). Classes, normalisation and thresholds stay, and so do other notes
/// whose keys begin with `densenet.`.
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
/// When the file cannot be read or is not of a DenseNet, or the other is called otherwise or cannot be
/// written.
pub fn convert(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Report, WeightsError> {
    let to = to.as_ref();
    check_name(to)?;
    let file = TensorFile::read(from)?;
    let plan = plan_of(&file, None)?;
    copy(&file, &plan, to, &Notes::of(&file)?, [])
}

/// Writes the weights of a file to another, as [`convert`] does, with these notes in place of the
/// file's own. Its other notes whose keys begin with `densenet.` stay, but for `others`, each a key and
/// a note.
///
/// # Errors
/// As [`convert`], and when the file is of another network than the plan.
pub fn copy(
    file: &TensorFile,
    plan: &Plan,
    to: impl AsRef<Path>,
    notes: &Notes,
    others: impl IntoIterator<Item = (String, String)>,
) -> Result<Report, WeightsError> {
    let to = to.as_ref();
    check_name(to)?;
    let (state, report) = State::load(plan, file, &LoadOptions::default())?;
    let mut lines = file.own_notes();
    lines.extend(others);
    state.write_noted(plan, to, notes, lines)?;
    Ok(report)
}

/// Refuses a file to write that is not called as those are that can be written: `.safetensors`, `.pth`,
/// `.pt` or `.bin`.
///
/// # Errors
/// When it is called otherwise.
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

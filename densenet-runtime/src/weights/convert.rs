//! Files of weights from one format into another.

use std::path::Path;

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
    let is_known = to.extension().is_some_and(|own| {
        let own = own.to_ascii_lowercase();
        own == "safetensors" || own == "pth" || own == "pt" || own == "bin"
    });
    if !is_known {
        return Err(WeightsError::Extension {
            path: to.to_path_buf(),
        });
    }
    let file = TensorFile::read(from)?;
    let plan = plan_of(&file, None)?;
    let (state, report) = State::load(&plan, &file, &LoadOptions::default())?;
    state.write_noted(&plan, to, &Notes::of(&file)?, file.own_notes())?;
    Ok(report)
}

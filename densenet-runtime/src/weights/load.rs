//! A network's state from a file: either all of it or an error, or a part with a report.

use std::fmt;
use std::path::{Path, PathBuf};

use densenet_plan::{Parameter, Plan, Role};

use super::error::list;
use super::names::{self, Names};
use super::state::{check_numbers, momentum};
use super::{Misfit, Misshapen, State, TensorFile, WeightsError, seal};
use crate::classes;

/// What to do with a tensor that the network does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unexpected {
    /// It is an error.
    #[default]
    Refuse,
    /// It is ignored, for files that hold more than weights.
    Ignore,
}

/// What of a file is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// All but the classifier, which gets initial values: for weights of a network with other classes.
    pub features_only: bool,
    /// Whether a stem for RGB may become one for grey pictures, and vice versa.
    pub adapt_stem: bool,
    /// The seed of a new classifier.
    pub seed: u64,
}

impl Default for LoadOptions {
    /// Everything, with a stem for the network's channels.
    fn default() -> Self {
        Self {
            features_only: false,
            adapt_stem: true,
            seed: 0,
        }
    }
}

/// What was made of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The file.
    pub path: PathBuf,
    /// Where the tensors of a PyTorch file were found.
    pub found: Option<String>,
    /// What the names of the network's tensors start with in the file.
    pub prefix: String,
    /// The file's names of the tensors that were used.
    pub used: Vec<String>,
    /// Our names of the network's tensors that are not taken from the file: those of a new classifier.
    pub missing: Vec<String>,
    /// The file's names of the tensors that were not used. Counters are not listed.
    pub left_over: Vec<String>,
    /// Channels of the file's stem and of the network's, if they differ.
    pub stem: Option<[usize; 2]>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(found) = &self.found {
            write!(f, "{found}; ")?;
        }
        write!(f, "{} tensors used", self.used.len())?;
        if !self.prefix.is_empty() {
            write!(f, " (their names start with `{}`)", self.prefix)?;
        }
        match self.stem {
            Some([from, 1]) => write!(f, "; the stem's {from} channels were summed into one")?,
            Some([1, to]) => write!(f, "; the stem's channel was divided among {to}")?,
            _ => {}
        }
        if !self.missing.is_empty() {
            let missing = list("new, with initial values", self.missing.iter());
            write!(f, "; {missing}")?;
        }
        if !self.left_over.is_empty() {
            write!(f, "; {}", list("left over", self.left_over.iter()))?;
        }
        Ok(())
    }
}

impl State {
    /// Reads a file that holds the network's tensors and no others, or a checkpoint.
    /// [`load`](State::load) also takes a part of a file, or a stem for other channels, and reports it.
    ///
    /// The names are torchvision's, or others that [`load`](State::load) lists. Counters
    /// (`num_batches_tracked`, `n_averaged`), a checkpoint's momentum and the rest of its run are
    /// ignored, and so is a prefix of all names: `module.` from `DataParallel`, `_orig_mod.` from
    /// `torch.compile`, `model.`. Elements may be `F64`, `F32`, `F16` or `BF16`.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or does not fit the network (all differences are
    /// reported together), or when a tensor holds NaN, infinity or a negative variance.
    pub fn read(plan: &Plan, path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        Self::from_file(plan, &TensorFile::read(path)?, Unexpected::Refuse)
    }

    /// Takes the network's tensors from a file: see [`State::read`].
    ///
    /// # Errors
    /// When the file does not fit the network or has other classes, no network can have its
    /// numbers, or they have changed since they were written.
    pub fn from_file(
        plan: &Plan,
        file: &TensorFile,
        unexpected: Unexpected,
    ) -> Result<Self, WeightsError> {
        let options = LoadOptions {
            adapt_stem: false,
            ..LoadOptions::default()
        };
        let (state, _, mut misfit) = take(plan, file, &options)?;
        if unexpected == Unexpected::Ignore {
            misfit.unexpected.clear();
        }
        if !misfit.is_empty() {
            return Err(WeightsError::Misfit {
                path: file.path().to_path_buf(),
                misfit,
            });
        }
        check_format_1(plan, file, &state)?;
        Ok(state)
    }

    /// Takes a network's tensors from a file of any library, and reports which ones it used.
    ///
    /// The names may be torchvision's, current or of 2017, timm's, torchxrayvision's, MONAI's or
    /// CheXNet's, with any prefix that all of them share. See [`State::read`] for the rest.
    ///
    /// ```
    /// use densenet_runtime::plan::Plan;
    /// use densenet_runtime::say;
    /// use densenet_runtime::weights::{LoadOptions, State, TensorFile, WeightsError};
    ///
    /// /// For other classes than those of ImageNet.
    /// fn pretrained(plan: &Plan) -> Result<State, WeightsError> {
    ///     let options = LoadOptions { features_only: true, ..LoadOptions::default() };
    ///     let file = TensorFile::read("densenet121-a639ec97.pth")?;
    ///     let (state, report) = State::load(plan, &file, &options)?;
    ///     say!("{report}");
    ///     Ok(state)
    /// }
    /// ```
    ///
    /// # Errors
    /// When a tensor is missing or has another shape, all differences together; when the file's classes
    /// have other names; when a tensor holds NaN, infinity or a negative variance.
    pub fn load(
        plan: &Plan,
        file: &TensorFile,
        options: &LoadOptions,
    ) -> Result<(Self, LoadReport), WeightsError> {
        let (state, report, misfit) = take(plan, file, options)?;
        if !misfit.missing.is_empty() || !misfit.misshapen.is_empty() {
            return Err(WeightsError::Misfit {
                path: file.path().to_path_buf(),
                misfit,
            });
        }
        if report.missing.is_empty() && report.stem.is_none() {
            check_format_1(plan, file, &state)?;
        }
        Ok((state, report))
    }
}

/// Compares the checksum of a checkpoint of format 1, which covers numbers and momentum.
fn check_format_1(plan: &Plan, file: &TensorFile, state: &State) -> Result<(), WeightsError> {
    let Some(expected) = file.checkpoint_note().and_then(seal::of_numbers) else {
        return Ok(());
    };
    let mut names = file.names().into_iter();
    if !names.any(|name| name.starts_with(names::MOMENTUM)) {
        // An edited checkpoint, which has nothing to check.
        return Ok(());
    }
    let momentum = momentum(plan, file)?;
    let parts = [&state.parameters, &state.running, &momentum];
    if seal::checksum(parts.map(Vec::as_slice)) == expected {
        return Ok(());
    }
    Err(WeightsError::Checksum {
        path: file.path().to_path_buf(),
    })
}

/// Takes the tensors that fit, and lists all differences.
fn take(
    plan: &Plan,
    file: &TensorFile,
    options: &LoadOptions,
) -> Result<(State, LoadReport, Misfit), WeightsError> {
    let named = ("the file", &file.classes()?[..]);
    if !options.features_only
        && let Some(difference) = classes::difference(("the network", plan.class_names()), named)
    {
        return Err(WeightsError::OtherClasses {
            path: file.path().to_path_buf(),
            difference,
        });
    }
    let mut names = Names::of(file);
    let mut misfit = Misfit::default();
    let mut report = LoadReport {
        path: file.path().to_path_buf(),
        found: file.origin(),
        prefix: names.prefix.clone(),
        ..LoadReport::default()
    };
    let mut state = State::zeros(plan);
    let mut differs_elsewhere = false;
    for parameter in plan.parameters() {
        let is_of_head = matches!(parameter.role, Role::LinearWeight | Role::LinearBias);
        if is_of_head && options.features_only {
            report.missing.push(parameter.torchvision);
            continue;
        }
        let Some(name) = names.sources.remove(&parameter.torchvision) else {
            differs_elsewhere |= !is_of_head;
            misfit.missing.push(parameter.torchvision);
            continue;
        };
        let found = file.shape(&name).unwrap_or_default();
        let stem = adaptable(&parameter, found).filter(|_| options.adapt_stem);
        if found != parameter.shape && stem.is_none() {
            differs_elsewhere |= !is_of_head;
            misfit.misshapen.push(Misshapen {
                found: found.to_vec(),
                expected: parameter.shape,
                name,
            });
            continue;
        }
        let mut values = file.floats(&name)?;
        check_numbers(file, &name, parameter.role, &values)?;
        if let Some([from, to]) = stem {
            values = adapted(&values, from, to, parameter.shape.iter().skip(2).product());
            report.stem = Some([from, to]);
        }
        state.of_parameter_mut(&parameter).copy_from_slice(&values);
        report.used.push(name);
    }
    if options.features_only {
        start_anew(plan, &mut state, options.seed);
    }
    let unknown = names.sources.into_values().chain(names.others);
    misfit.unexpected = unknown.collect();
    misfit.unexpected.sort_unstable();
    report.left_over = misfit.unexpected.clone();
    report.left_over.append(&mut names.beside);
    let differs = !misfit.missing.is_empty() || !misfit.misshapen.is_empty();
    if differs && !differs_elsewhere {
        misfit.advice = Some(
            "only the classifier differs: load the features only (`features_only`, \
                `--features-only`), and it gets initial values",
        );
    }
    Ok((state, report, misfit))
}

/// The channels of a file's stem and of the network's, if these differ, and one has 1 and the other 3.
fn adaptable(parameter: &Parameter, found: &[usize]) -> Option<[usize; 2]> {
    let (&[maps, from, ref kernel @ ..], &[ours, to, ref our_kernel @ ..]) =
        (found, &parameter.shape[..])
    else {
        return None;
    };
    let fits = maps == ours && kernel == our_kernel;
    let is_stem = parameter.torchvision == names::STEM;
    (is_stem && fits && matches!((from, to), (1, 3) | (3, 1))).then_some([from, to])
}

/// A stem's weight, maps x channels x pixels, for other channels: a grey picture has the same
/// response as the picture with three equal channels.
fn adapted(values: &[f32], from: usize, to: usize, pixels: usize) -> Vec<f32> {
    let mut all = Vec::with_capacity(values.len() / from.max(1) * to);
    for map in values.chunks(from * pixels) {
        let grey: Vec<f32> = (0..pixels)
            .map(|at| map.iter().skip(at).step_by(pixels).sum::<f32>() / to as f32)
            .collect();
        all.extend(grey.repeat(to));
    }
    all
}

/// Gives a classifier its initial values.
fn start_anew(plan: &Plan, state: &mut State, seed: u64) {
    let initial = State::initial(plan, seed);
    // The classifier comes last, and has no running statistics.
    let features = plan.tensors().head.weight.start;
    let own = state.parameters.iter_mut().skip(features);
    own.zip(initial.parameters.into_iter().skip(features))
        .for_each(|(own, initial)| *own = initial);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stem_for_grey_pictures_sums_and_one_for_colour_divides() {
        // Two maps of three channels of two pixels.
        let rgb: Vec<f32> = (0_u8..12).map(f32::from).collect();
        let grey = adapted(&rgb, 3, 1, 2);
        assert_eq!(grey, [6.0, 9.0, 24.0, 27.0]);
        let again = adapted(&grey, 1, 3, 2);
        let expected = [[2.0, 3.0].repeat(3), [8.0, 9.0].repeat(3)].concat();
        assert_eq!(again, expected);
    }
}

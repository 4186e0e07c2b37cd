//! A network's whole state, in memory and in a file.

use std::collections::BTreeMap;
use std::path::Path;

use densenet_plan::{Parameter, Plan, Role};

use super::{Misfit, Misshapen, NamedTensor, Notes, TensorFile, WeightsError, names};

/// A network's trainable parameters and running statistics, each in the order of
/// [`Plan::parameters`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Trainable parameters: [`Plan::parameter_count`] of them.
    pub parameters: Vec<f32>,
    /// Running means and variances: [`Plan::running_count`] of them.
    pub running: Vec<f32>,
}

impl State {
    /// Writes the state to a file with the tensors that torchvision's `load_state_dict` accepts:
    /// one for `torch.load` if its name ends in `.pth`, `.pt` or `.bin`, and safetensors otherwise.
    /// The file is written completely or not at all.
    ///
    /// # Errors
    /// When the state belongs to another network, or the file cannot be written.
    pub fn write(&self, plan: &Plan, path: impl AsRef<Path>) -> Result<(), WeightsError> {
        self.write_with(plan, path, &Notes::default())
    }

    /// The same with notes. If they have no classes, those of the plan are written.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_with(
        &self,
        plan: &Plan,
        path: impl AsRef<Path>,
        notes: &Notes,
    ) -> Result<(), WeightsError> {
        self.write_noted(plan, path, notes, BTreeMap::new(), false)
    }

    /// The same with further notes, by their keys; if `f16`, with the matrices as f16.
    pub(super) fn write_noted(
        &self,
        plan: &Plan,
        path: impl AsRef<Path>,
        notes: &Notes,
        mut lines: BTreeMap<String, String>,
        f16: bool,
    ) -> Result<(), WeightsError> {
        self.check_lengths(plan.parameter_count(), plan.running_count())?;
        let parameters = plan.parameters();
        let tensors = parameters.iter().map(|parameter| {
            let values = self.of_parameter(parameter);
            let tensor =
                NamedTensor::new(&parameter.torchvision, parameter.shape.as_slice(), values);
            match f16 && parameter.shape.len() > 1 {
                true => tensor.in_f16(),
                false => tensor,
            }
        });
        for tensor in tensors.clone() {
            if let Some(found) = tensor.beyond_f16() {
                return Err(WeightsError::BeyondF16 {
                    path: path.as_ref().to_path_buf(),
                    name: tensor.name,
                    found,
                });
            }
        }
        lines.extend(notes.lines_for(plan));
        if is_named_as_torch(path.as_ref()) {
            return TensorFile::write_torch(path, tensors, lines);
        }
        TensorFile::write(path, tensors, lines)
    }

    /// The elements of one tensor of the network.
    ///
    /// # Panics
    /// When the state and `parameter` belong to different networks.
    pub fn of_parameter(&self, parameter: &Parameter) -> &[f32] {
        let arena = if parameter.role.is_trainable() {
            &self.parameters
        } else {
            &self.running
        };
        &arena[parameter.range()]
    }

    /// A state of zeros.
    pub(super) fn zeros(plan: &Plan) -> Self {
        Self {
            parameters: vec![0.0; plan.parameter_count()],
            running: vec![0.0; plan.running_count()],
        }
    }

    pub(super) fn of_parameter_mut(&mut self, parameter: &Parameter) -> &mut [f32] {
        let arena = if parameter.role.is_trainable() {
            &mut self.parameters
        } else {
            &mut self.running
        };
        &mut arena[parameter.range()]
    }

    /// Refuses a state of another size.
    pub(crate) fn check_lengths(
        &self,
        parameters: usize,
        running: usize,
    ) -> Result<(), WeightsError> {
        for (what, found, expected) in [
            ("parameters", self.parameters.len(), parameters),
            ("running statistics", self.running.len(), running),
        ] {
            if found != expected {
                return Err(WeightsError::Length {
                    what,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

/// Whether a file has an extension of `torch.save`.
fn is_named_as_torch(path: &Path) -> bool {
    let extension = path.extension().map(|own| own.to_ascii_lowercase());
    extension.is_some_and(|own| own == "pth" || own == "pt" || own == "bin")
}

/// Refuses numbers with which a network cannot compute.
pub(super) fn check_numbers(
    file: &TensorFile,
    name: &str,
    role: Role,
    values: &[f32],
) -> Result<(), WeightsError> {
    let is_variance = role == Role::RunningVar;
    let is_wrong = |&value: &f32| !value.is_finite() || (is_variance && value < 0.0);
    let Some(index) = values.iter().position(is_wrong) else {
        return Ok(());
    };
    let found = values[index];
    Err(WeightsError::Number {
        path: file.path().to_path_buf(),
        name: name.to_string(),
        index,
        found,
        why: if found.is_finite() {
            "a variance must not be negative"
        } else {
            "weights must be finite"
        },
    })
}

/// The momentum in a checkpoint, in the order of [`Plan::parameters`].
///
/// # Errors
/// When a parameter's momentum is missing or has another shape.
pub(crate) fn momentum(plan: &Plan, file: &TensorFile) -> Result<Vec<f32>, WeightsError> {
    of_run(plan, file, names::MOMENTUM, Role::is_trainable)
}

/// The numbers that a checkpoint has under a prefix for the trainable tensors, or for the others,
/// in the order of [`Plan::parameters`]; `None` if it has none.
///
/// # Errors
/// As [`momentum`].
#[cfg(feature = "train")]
pub(crate) fn of_checkpoint(
    plan: &Plan,
    file: &TensorFile,
    prefix: &str,
    trainable: bool,
) -> Result<Option<Vec<f32>>, WeightsError> {
    let chosen = |role: Role| role.is_trainable() == trainable;
    let has = |name: &String| file.shape(&format!("{prefix}{name}")).is_some();
    let parameters = plan.parameters();
    let mut found = parameters
        .iter()
        .filter(|parameter| chosen(parameter.role))
        .flat_map(|parameter| names::in_our_files(plan, &parameter.torchvision));
    if !found.any(|name| has(&name)) {
        return Ok(None);
    }
    of_run(plan, file, prefix, chosen).map(Some)
}

/// The numbers that a checkpoint has under a prefix for the `chosen` tensors of the network, all of
/// one arena, in the order of [`Plan::parameters`].
fn of_run(
    plan: &Plan,
    file: &TensorFile,
    prefix: &str,
    chosen: impl Fn(Role) -> bool,
) -> Result<Vec<f32>, WeightsError> {
    let mut arena = Vec::new();
    let mut misfit = Misfit::default();
    for parameter in plan.parameters() {
        if !chosen(parameter.role) {
            continue;
        }
        arena.resize(arena.len().max(parameter.range().end), 0.0);
        let candidates = names::in_our_files(plan, &parameter.torchvision);
        let named = candidates.map(|name| format!("{prefix}{name}"));
        let Some(name) = named.iter().find(|name| file.shape(name).is_some()) else {
            misfit.missing.extend(named.into_iter().next());
            continue;
        };
        let found = file.shape(name).unwrap_or_default();
        if found != parameter.shape {
            misfit.misshapen.push(Misshapen {
                found: found.to_vec(),
                expected: parameter.shape,
                name: name.clone(),
            });
            continue;
        }
        let values = file.floats(name)?;
        check_numbers(file, name, parameter.role, &values)?;
        arena[parameter.range()].copy_from_slice(&values);
    }
    if misfit.is_empty() {
        Ok(arena)
    } else {
        Err(WeightsError::Misfit {
            path: file.path().to_path_buf(),
            misfit,
        })
    }
}

//! A network's whole state, and its file.

use std::collections::HashMap;
use std::path::Path;

use densenet_plan::{Parameter, Plan, Role};

use super::{Misfit, Misshapen, NamedTensor, TensorFile, WeightsError};

/// A network's trainable parameters and running statistics, each in the order of
/// [`Plan::parameters`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Trainable parameters: [`Plan::parameter_count`] of them.
    pub parameters: Vec<f32>,
    /// Running means and variances: [`Plan::running_count`] of them.
    pub running: Vec<f32>,
}

/// What to do with a tensor that the network has no place for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unexpected {
    /// It is an error.
    #[default]
    Refuse,
    /// It is passed over: for files that hold more than weights.
    Ignore,
}

/// What PyTorch's `DataParallel` and `DistributedDataParallel` put in front of each name.
const WRAPPER: &str = "module.";

impl State {
    /// Reads a file that holds the network's tensors and no others.
    ///
    /// The names are torchvision's, also the old ones (`norm.1` for `norm1`); counters
    /// (`num_batches_tracked`) are passed over, and so is `module.` in front of all names, which
    /// `DataParallel` puts there. Elements may be `F32`, `F16` or `BF16`.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or does not fit the network (all differences
    /// are reported together), or when a tensor holds NaN, an infinity or a negative variance.
    pub fn read(plan: &Plan, path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        Self::from_file(plan, &TensorFile::read(path)?, Unexpected::Refuse)
    }

    /// Takes the network's tensors out of a file: see [`State::read`].
    ///
    /// # Errors
    /// When the file does not fit the network, or its numbers are those of none.
    pub fn from_file(
        plan: &Plan,
        file: &TensorFile,
        unexpected: Unexpected,
    ) -> Result<Self, WeightsError> {
        // From the current name to the one that the file uses. A current name wins over an old
        // one that means the same tensor, which is then unexpected.
        let mut sources: HashMap<String, String> = HashMap::new();
        let mut misfit = Misfit::default();
        let names = file.names();
        let wrapped = names.iter().all(|name| name.starts_with(WRAPPER));
        for name in names {
            if name.ends_with(".num_batches_tracked") {
                continue;
            }
            let wrapper = if wrapped { WRAPPER } else { "" };
            let plain = &name[wrapper.len()..];
            let current = current_name(plain);
            if current == plain || file.shape(&format!("{wrapper}{current}")).is_none() {
                sources.insert(current, name);
            } else {
                misfit.unexpected.push(name);
            }
        }
        let mut state = Self {
            parameters: vec![0.0; plan.parameter_count()],
            running: vec![0.0; plan.running_count()],
        };
        for parameter in plan.parameters() {
            let Some(name) = sources.remove(&parameter.torchvision) else {
                misfit.missing.push(parameter.torchvision);
                continue;
            };
            let found = file.shape(&name).unwrap_or_default();
            if found != parameter.shape {
                misfit.misshapen.push(Misshapen {
                    found: found.to_vec(),
                    expected: parameter.shape,
                    name,
                });
                continue;
            }
            let values = file.floats(&name)?;
            check_numbers(file, &name, parameter.role, &values)?;
            state.of_parameter_mut(&parameter).copy_from_slice(&values);
        }
        misfit.unexpected.extend(sources.into_values());
        misfit.unexpected.sort_unstable();
        if unexpected == Unexpected::Ignore {
            misfit.unexpected.clear();
        }
        if misfit.is_empty() {
            Ok(state)
        } else {
            Err(WeightsError::Misfit {
                path: file.path().to_path_buf(),
                misfit,
            })
        }
    }

    /// Writes the state as a file that torchvision's `load_state_dict` takes. The file appears
    /// at once or not at all.
    ///
    /// # Errors
    /// When the state is of another network, or the file cannot be written.
    pub fn write(&self, plan: &Plan, path: impl AsRef<Path>) -> Result<(), WeightsError> {
        self.check_lengths(plan.parameter_count(), plan.running_count())?;
        let parameters = plan.parameters();
        let tensors = parameters.iter().map(|parameter| {
            let values = self.of_parameter(parameter);
            NamedTensor::new(&parameter.torchvision, parameter.shape.as_slice(), values)
        });
        TensorFile::write(path, tensors, HashMap::new())
    }

    /// The elements of one tensor of the network.
    ///
    /// # Panics
    /// When the state is of another network than `parameter`.
    pub fn of_parameter(&self, parameter: &Parameter) -> &[f32] {
        let arena = if parameter.role.is_trainable() {
            &self.parameters
        } else {
            &self.running
        };
        &arena[parameter.range()]
    }

    fn of_parameter_mut(&mut self, parameter: &Parameter) -> &mut [f32] {
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

/// Refuses numbers with which a network computes nothing.
fn check_numbers(
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
            "a variance is 0 or more"
        } else {
            "weights are finite"
        },
    })
}

/// The current name of a tensor: files from before 2018 write `norm.1` where it is now `norm1`.
fn current_name(name: &str) -> String {
    let Some((before, layer)) = name.split_once(".denselayer") else {
        return name.to_string();
    };
    let mut layer = layer.to_string();
    for module in ["norm", "conv"] {
        for index in ["1", "2"] {
            let old = format!(".{module}.{index}.");
            layer = layer.replace(&old, &format!(".{module}{index}."));
        }
    }
    format!("{before}.denselayer{layer}")
}

#[cfg(test)]
mod tests {
    use super::current_name;

    #[test]
    fn old_names_are_understood_inside_dense_layers_only() {
        for (name, current) in [
            (
                "features.denseblock1.denselayer12.norm.1.running_mean",
                "features.denseblock1.denselayer12.norm1.running_mean",
            ),
            (
                "features.denseblock4.denselayer2.conv.2.weight",
                "features.denseblock4.denselayer2.conv2.weight",
            ),
            (
                "features.denseblock4.denselayer2.conv2.weight",
                "features.denseblock4.denselayer2.conv2.weight",
            ),
            (
                "features.transition1.norm.weight",
                "features.transition1.norm.weight",
            ),
        ] {
            assert_eq!(current_name(name), current);
        }
    }
}

//! A run in one file, so that it can go on as if it had never stopped.
//!
//! The file is safetensors. Weights and running statistics are under torchvision's names, so
//! that it loads elsewhere; each trainable parameter has its momentum under `momentum.` and its
//! name; what else a run consists of is JSON in a note of the file. It appears at once or not at
//! all: a full disk or a kill leaves the checkpoint before it whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Best, Config};
use crate::plan::Plan;
use crate::weights::{NamedTensor, State, TensorFile, Unexpected, WeightsError};

/// Changes when older code could not read the file.
const FORMAT: u32 = 1;
/// The note with all that is not tensors.
const NOTE: &str = "densenet";
/// How many names of classes a message lists before the rest is only counted.
const LISTED: usize = 5;

/// The numbers of a network in training.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Numbers {
    pub(super) state: State,
    /// Of each trainable parameter, in the order of [`Plan::parameters`].
    pub(super) momentum: Vec<f32>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Steps done.
    pub(super) step: u64,
    /// Epochs done, evaluation included.
    pub(super) epoch: u32,
    /// Steps done in the current epoch.
    pub(super) epoch_step: u64,
    /// Steps of an epoch; none before they are known.
    pub(super) epoch_steps: Option<u64>,
    pub(super) best: Option<Best>,
}

/// All but the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    format: u32,
    /// The version of this crate that wrote the file.
    version: String,
    /// The type's name.
    network: String,
    /// [`fingerprint`] of its plan.
    plan: String,
    pub(super) config: Config,
    pub(super) position: Position,
    /// The names of the data's classes; none where it has none, and in older files.
    #[serde(default)]
    pub(super) classes: Vec<String>,
    /// CRC-32 of parameters, running statistics and momentum.
    checksum: u32,
}

/// Why a checkpoint could not be written, read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file could not be read or written, or its tensors are not the network's.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The file is damaged.
    #[error("{} is a damaged checkpoint: {reason}; use an older one", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file has weights, but no run.
    #[error(
        "{} holds weights, but no run to resume (no note `densenet`); load it as weights and start a new run", .path.display()
    )]
    WeightsOnly {
        /// The file.
        path: PathBuf,
    },
    /// The file is of another version of the format.
    #[error(
        "{} is a checkpoint of format {found}, written by version {version}; this version reads format {FORMAT}", .path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The version that wrote it.
        version: String,
    },
    /// The file is of another network.
    #[error(
        "{} is a checkpoint of {found}, not of {expected}:\n  checkpoint: {found_plan}\n  network:    {expected_plan}", .path.display()
    )]
    Network {
        /// The file.
        path: PathBuf,
        /// Name of its network.
        found: String,
        /// That network in a line.
        found_plan: String,
        /// Name of the network that asks for it.
        expected: String,
        /// That network in a line.
        expected_plan: String,
    },
    /// The run has other settings.
    #[error(
        "{} is a checkpoint of a run with other settings: {}. Resume with the settings of the checkpoint, or start a new run from its weights", .path.display(), .differences.join("; ")
    )]
    Settings {
        /// The file.
        path: PathBuf,
        /// What differs.
        differences: Vec<String>,
    },
    /// The data has other classes.
    #[error(
        "the checkpoint's run has other classes than the data at hand: {difference}; resume with the data of the checkpoint, or start a new run from its weights"
    )]
    Classes {
        /// The first difference.
        difference: String,
    },
    /// The data has another length.
    #[error(
        "the checkpoint's run has {found} steps in an epoch, the data at hand gives {expected}: it is other data; resume with the data of the checkpoint"
    )]
    Data {
        /// Steps of an epoch in the checkpoint.
        found: u64,
        /// Steps of an epoch now.
        expected: u64,
    },
}

/// A plan in a line: all that changes what a network computes.
pub(super) fn fingerprint(plan: &Plan) -> String {
    use std::fmt::Write;

    let stem = plan.stem();
    let mut line = format!(
        "input {}x{}x{}, {:?} stem to {}",
        stem.channels, stem.height, stem.width, stem.kind, stem.maps
    );
    // Writing to a string cannot fail.
    for (index, block) in plan.blocks().iter().enumerate() {
        let _ = write!(line, ", {} layers of {}", block.layers, block.growth);
        if let Some(maps) = block.bottleneck {
            let _ = write!(line, " over {maps}");
        }
        if let Some(transition) = plan.transitions().get(index) {
            let _ = write!(line, ", transition to {}", transition.output);
        }
    }
    let _ = write!(line, ", {} classes", plan.classes());
    if plan.dropout() > 0.0 {
        let _ = write!(line, ", dropout {}", plan.dropout());
    }
    line
}

impl Header {
    pub(super) fn new(
        network: &str,
        plan: &Plan,
        config: &Config,
        position: Position,
        classes: &[String],
    ) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_string(),
            network: network.to_string(),
            plan: fingerprint(plan),
            config: config.clone(),
            position,
            classes: classes.to_vec(),
            checksum: 0,
        }
    }
}

/// Writes a checkpoint, all or nothing.
pub(super) fn save(
    path: &Path,
    plan: &Plan,
    mut header: Header,
    numbers: &Numbers,
) -> Result<(), CheckpointError> {
    header.checksum = checksum(numbers);
    // Numbers, names and lists of them: there is nothing that JSON has no form for.
    let header =
        serde_json::to_string(&header).map_err(|error| damaged(path, error.to_string()))?;
    let parameters = plan.parameters();
    let tensor = |name: &str, shape: &[usize], values| NamedTensor::new(name, shape, values);
    let weights = parameters.iter().map(|parameter| {
        let values = numbers.state.of_parameter(parameter);
        tensor(&parameter.torchvision, &parameter.shape, values)
    });
    let trainable = parameters.iter().filter(|p| p.role.is_trainable());
    let momentum = trainable.map(|parameter| {
        let values = &numbers.momentum[parameter.range()];
        tensor(
            &momentum_of(&parameter.torchvision),
            &parameter.shape,
            values,
        )
    });
    // PyTorch's tools look for `format`.
    let notes = HashMap::from([(NOTE.to_string(), header), ("format".into(), "pt".into())]);
    Ok(TensorFile::write(path, weights.chain(momentum), notes)?)
}

/// Reads a checkpoint of this network.
pub(super) fn load(
    path: &Path,
    network: &str,
    plan: &Plan,
) -> Result<(Header, Numbers), CheckpointError> {
    let file = TensorFile::read(path)?;
    let header = header(path, &file)?;
    let expected_plan = fingerprint(plan);
    if header.plan != expected_plan {
        return Err(CheckpointError::Network {
            path: path.to_path_buf(),
            found: header.network,
            found_plan: header.plan,
            expected: network.to_string(),
            expected_plan,
        });
    }
    let mut numbers = Numbers {
        // The momentum is what is unexpected.
        state: State::from_file(plan, &file, Unexpected::Ignore)?,
        momentum: vec![0.0; plan.parameter_count()],
    };
    for parameter in plan.parameters() {
        if !parameter.role.is_trainable() {
            continue;
        }
        let name = momentum_of(&parameter.torchvision);
        let values = file.floats(&name)?;
        if values.len() != parameter.len() {
            return Err(damaged(
                path,
                format!(
                    "`{name}` has {} elements, not {}",
                    values.len(),
                    parameter.len()
                ),
            ));
        }
        numbers.momentum[parameter.range()].copy_from_slice(&values);
    }
    if checksum(&numbers) != header.checksum {
        let reason = "its numbers are not those that were written (the checksum differs)";
        return Err(damaged(path, reason.into()));
    }
    Ok((header, numbers))
}

/// The settings of a checkpoint's run.
pub(super) fn config(path: &Path) -> Result<Config, CheckpointError> {
    Ok(header(path, &TensorFile::read(path)?)?.config)
}

/// The names of the classes of a checkpoint's data; none in those of older versions, and where
/// the data has no names.
///
/// # Errors
/// When the file cannot be read or is no checkpoint.
pub fn classes_of_checkpoint(path: impl AsRef<Path>) -> Result<Vec<String>, CheckpointError> {
    let path = path.as_ref();
    Ok(header(path, &TensorFile::read(path)?)?.classes)
}

/// Whether a run on data of some classes can go on with data of others. Where either has no
/// names, nothing is known against it.
pub(super) fn check_classes(run: &[String], data: &[String]) -> Result<(), CheckpointError> {
    if run.is_empty() || data.is_empty() || run == data {
        return Ok(());
    }
    let quoted = |names: &[&String]| {
        let mut list: Vec<_> = names
            .iter()
            .take(LISTED)
            .map(|n| format!("`{n}`"))
            .collect();
        if names.len() > LISTED {
            list.push(format!("and {} more", names.len() - LISTED));
        }
        list.join(", ")
    };
    let only = |these: &'_ [String], those: &[String]| {
        let names: Vec<_> = these.iter().filter(|name| !those.contains(name)).collect();
        quoted(&names)
    };
    let difference = match (only(run, data), only(data, run)) {
        (run, data) if run.is_empty() && data.is_empty() => "they are in another order".into(),
        (run, data) if data.is_empty() => format!("the data lacks {run}"),
        (run, data) if run.is_empty() => format!("the checkpoint lacks {data}"),
        (run, data) => format!("only the checkpoint has {run}; only the data has {data}"),
    };
    Err(CheckpointError::Classes { difference })
}

fn header(path: &Path, file: &TensorFile) -> Result<Header, CheckpointError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
        version: String,
    }
    let note = file
        .note(NOTE)
        .ok_or_else(|| CheckpointError::WeightsOnly {
            path: path.to_path_buf(),
        })?;
    let unreadable = |error| damaged(path, format!("its note cannot be read: {error}"));
    // Another format may have another header.
    let found: Version = serde_json::from_str(note).map_err(unreadable)?;
    if found.format != FORMAT {
        return Err(CheckpointError::Format {
            path: path.to_path_buf(),
            found: found.format,
            version: found.version,
        });
    }
    serde_json::from_str(note).map_err(unreadable)
}

fn damaged(path: &Path, reason: String) -> CheckpointError {
    CheckpointError::Damaged {
        path: path.to_path_buf(),
        reason,
    }
}

fn momentum_of(torchvision: &str) -> String {
    format!("momentum.{torchvision}")
}

fn checksum(numbers: &Numbers) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let state = &numbers.state;
    for values in [&state.parameters, &state.running, &numbers.momentum] {
        // In pieces, so that not all bytes are in memory twice.
        for piece in values.chunks(1 << 14) {
            let bytes: Vec<u8> = piece.iter().flat_map(|v| v.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
    }
    hasher.finalize()
}

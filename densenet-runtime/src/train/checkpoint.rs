//! A run in one file, so that it can be resumed as if it had never stopped.
//!
//! The file is safetensors. Weights and running statistics, as they were evaluated, are under
//! torchvision's names, so that it loads elsewhere. The momentum of each trainable parameter is under
//! `momentum.` and its name, and AdamW's second moment under `second_moment.`. If the running
//! statistics were recomputed for an evaluation (precise BN), those of training are under `training.`
//! and their names. An average of the weights (EMA) is itself evaluated; it is also under `ema.`, and
//! all tensors in training are under `training.`. The rest of a run is JSON in a note of the file. A
//! checksum covers the whole file. The file is written completely or not at all: a full disk or a
//! kill leaves the previous checkpoint intact, and numbers that are not finite are not written.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::schedule::PlateauState;
use super::score::BestBy;
use super::{Best, CheckpointError, Config, Rescheduled};
use crate::plan::Plan;
use crate::weights::{
    self, CHECKPOINT, NamedTensor, Notes, State, TensorFile, Unexpected,
    names::{EMA, MOMENTUM, SECOND_MOMENT, TRAINING},
};
use crate::{Normalization, classes};

/// Changes when older code could not read the file. In format 1 the checksum covers the tensors'
/// numbers, but not the note; in format 2 the best evaluation is the one with the lowest top-1
/// error. Both can still be read.
const FORMAT: u32 = 3;

/// The numbers of a network in training.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Numbers {
    /// As it was, or is to be, evaluated.
    pub(super) state: State,
    /// The momentum of each trainable parameter, in the order of [`Plan::parameters`].
    pub(super) momentum: Vec<f32>,
    /// The second moments, with AdamW.
    pub(super) second_moments: Option<Vec<f32>>,
    /// The parameters in training, if those of `state` are averages.
    pub(super) trained_parameters: Option<Vec<f32>>,
    /// The running statistics of training, if those of `state` were recomputed or are averages.
    pub(super) trained: Option<Vec<f32>>,
    /// The average, if there is one.
    pub(super) ema: Option<State>,
}

/// The position of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Steps done.
    pub(super) step: u64,
    /// Epochs done, evaluation included.
    pub(super) epoch: u32,
    /// Steps done in the current epoch.
    pub(super) epoch_step: u64,
    /// Steps of an epoch; `None` before they are known.
    pub(super) epoch_steps: Option<u64>,
    pub(super) best: Option<Best>,
    /// What the schedule remembers of the evaluations.
    #[serde(default)]
    pub(super) plateau: PlateauState,
}

impl Position {
    /// Counts the epochs of steps that were done before the length of an epoch was known.
    pub(super) fn count_epochs(&mut self, epoch_steps: u64) {
        if self.epoch_step > epoch_steps {
            self.epoch = u32::try_from(self.step / epoch_steps).unwrap_or(u32::MAX);
            self.epoch_step = self.step % epoch_steps;
        }
    }

    /// Why no run can be at this position, if its numbers are inconsistent.
    fn problem(&self) -> Option<String> {
        /// More steps than any run has, but few enough that counting cannot overflow.
        const MOST: u64 = 1 << 53;
        let Self {
            step,
            epoch,
            epoch_step,
            epoch_steps,
            best,
            plateau: _,
        } = *self;
        let counted = match epoch_steps {
            // Before the length of an epoch is known, all steps belong to the first.
            None => (epoch == 0).then_some(epoch_step),
            Some(0) => None,
            Some(steps) => u64::from(epoch)
                .checked_mul(steps)
                .filter(|_| epoch_step <= steps && epoch < u32::MAX)
                .and_then(|before| before.checked_add(epoch_step)),
        };
        if counted != Some(step) || step > MOST {
            let of = epoch_steps.map_or("unknown".to_string(), |steps| steps.to_string());
            return Some(format!(
                "{step} steps are not {epoch} epochs of {of} steps and {epoch_step} more"
            ));
        }
        // It may be of a later step, if a run was killed after it and was resumed from an earlier
        // checkpoint.
        let Best { step, by, score } = best?;
        let most = if by == BestBy::Loss { f64::MAX } else { 1.0 };
        let is_sound = step <= MOST && (0.0..=most).contains(&score);
        (!is_sound).then(|| {
            format!("the best evaluation cannot be after step {step} with a {by} of {score}")
        })
    }
}

/// Everything in a checkpoint but its tensors.
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
    /// The names of the classes, which are a note of their own; empty if neither the network nor
    /// the data names them.
    #[serde(skip)]
    pub(super) classes: Vec<String>,
    /// How the data was normalised, also a note of its own.
    #[serde(skip)]
    pub(super) normalization: Option<Normalization>,
    /// The thresholds of the classes, a note of their own; empty if there are none.
    #[serde(skip)]
    pub(super) thresholds: Vec<Option<f32>>,
    /// The changes of the run's schedule; empty in older files.
    #[serde(default)]
    pub(super) rescheduled: Vec<Rescheduled>,
}

/// A plan in a line: everything that a network's results depend on.
fn fingerprint(plan: &Plan) -> String {
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
        rescheduled: &[Rescheduled],
    ) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_string(),
            network: network.to_string(),
            plan: fingerprint(plan),
            config: config.clone(),
            position,
            classes: classes.to_vec(),
            normalization: None,
            thresholds: Vec::new(),
            rescheduled: rescheduled.to_vec(),
        }
    }
}

/// Writes a checkpoint with these additional notes, completely or not at all.
pub(super) fn save(
    path: &Path,
    plan: &Plan,
    header: &Header,
    numbers: &Numbers,
    mut notes: BTreeMap<String, String>,
) -> Result<(), CheckpointError> {
    let own = Notes {
        classes: header.classes.clone(),
        normalization: header.normalization.clone(),
        thresholds: header.thresholds.clone(),
    };
    // These replace others of the same keys.
    notes.extend(own.lines());
    // This cannot fail: JSON has a form for numbers, names and lists of them.
    let header = serde_json::to_string(header).map_err(|error| damaged(path, error.to_string()))?;
    let mut tensors = Vec::new();
    for parameter in plan.parameters() {
        let is_trainable = parameter.role.is_trainable();
        let of_run = if is_trainable {
            [
                (MOMENTUM, Some(&numbers.momentum)),
                (SECOND_MOMENT, numbers.second_moments.as_ref()),
                (TRAINING, numbers.trained_parameters.as_ref()),
            ]
        } else {
            [
                (TRAINING, numbers.trained.as_ref()),
                (MOMENTUM, None),
                (SECOND_MOMENT, None),
            ]
        };
        let of_run = of_run.into_iter().filter_map(|(prefix, values)| {
            let values = values?.get(parameter.range())?;
            Some((prefix, values))
        });
        let ema = numbers.ema.as_ref();
        let ema = ema.map(|state| (EMA, state.of_parameter(&parameter)));
        let own = ("", numbers.state.of_parameter(&parameter));
        for (prefix, values) in [own].into_iter().chain(of_run).chain(ema) {
            let name = format!("{prefix}{}", parameter.torchvision);
            tensors.push((name, parameter.shape.clone(), values));
        }
    }
    for (name, _, values) in &tensors {
        if let Some(&found) = values.iter().find(|value| !value.is_finite()) {
            return Err(CheckpointError::NotFinite {
                path: path.to_path_buf(),
                name: name.clone(),
                found,
            });
        }
    }
    let tensors = tensors
        .into_iter()
        .map(|(name, shape, values)| NamedTensor::new(name, shape, values));
    notes.insert(CHECKPOINT.into(), header);
    // PyTorch's tools look for `format`.
    notes.insert("format".into(), "pt".into());
    Ok(TensorFile::write(path, tensors, notes)?)
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
    let numbers = Numbers {
        state: State::from_file(plan, &file, Unexpected::Ignore)?,
        momentum: weights::momentum(plan, &file)?,
        second_moments: weights::of_checkpoint(plan, &file, SECOND_MOMENT, true)?,
        trained_parameters: weights::of_checkpoint(plan, &file, TRAINING, true)?,
        trained: weights::of_checkpoint(plan, &file, TRAINING, false)?,
        ema: match (
            weights::of_checkpoint(plan, &file, EMA, true)?,
            weights::of_checkpoint(plan, &file, EMA, false)?,
        ) {
            (Some(parameters), Some(running)) => Some(State {
                parameters,
                running,
            }),
            _ => None,
        },
    };
    let config = &header.config;
    let missing = [
        (
            config.adapts() && numbers.second_moments.is_none(),
            "second moments",
        ),
        (
            config.ema.is_some() && numbers.ema.is_none() && header.position.step > 0,
            "average",
        ),
    ];
    if let Some((_, what)) = missing.into_iter().find(|(is_missing, _)| *is_missing) {
        return Err(damaged(path, format!("its {what} is missing")));
    }
    Ok((header, numbers))
}

impl Config {
    /// Reads the settings of a checkpoint's run, to resume it with.
    ///
    /// # Errors
    /// When the file cannot be read or is not a checkpoint.
    pub fn of_checkpoint(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        Ok(header(path, &TensorFile::read(path)?)?.config)
    }
}

/// The best evaluation of a best checkpoint of this network. The whole file is checked.
pub(super) fn best(path: &Path, network: &str, plan: &Plan) -> Result<Best, CheckpointError> {
    let position = load(path, network, plan)?.0.position;
    position
        .best
        .filter(|best| best.step == position.step)
        .ok_or_else(|| {
            let reason = "it is not the best checkpoint of a run";
            damaged(path, reason.into())
        })
}

/// Checks that a run can be resumed with data of these classes. If either has no names, it can.
pub(super) fn check_classes(run: &[String], data: &[String]) -> Result<(), CheckpointError> {
    match classes::difference(("the checkpoint", run), ("the data", data)) {
        Some(difference) => Err(CheckpointError::Classes { difference }),
        None => Ok(()),
    }
}

/// Checks that a run can be resumed with data that is normalised in this way. If either
/// normalisation is unknown, it can.
pub(super) fn check_normalization(
    run: Option<&Normalization>,
    data: Option<&Normalization>,
) -> Result<(), CheckpointError> {
    let words = ("the checkpoint", "the data");
    match run.and_then(|run| run.difference(words, data?)) {
        Some(difference) => Err(CheckpointError::Normalization { difference }),
        None => Ok(()),
    }
}

fn header(path: &Path, file: &TensorFile) -> Result<Header, CheckpointError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
        version: String,
    }
    let note = file
        .checkpoint_note()
        .ok_or_else(|| CheckpointError::WeightsOnly {
            path: path.to_path_buf(),
        })?;
    let unreadable = |error| damaged(path, format!("its note cannot be read: {error}"));
    // Another format may have another header, so its number is read first.
    let found: Version = serde_json::from_str(note).map_err(unreadable)?;
    if !(1..=FORMAT).contains(&found.format) {
        return Err(CheckpointError::Format {
            newest: FORMAT,
            path: path.to_path_buf(),
            found: found.format,
            version: found.version,
        });
    }
    if found.format > 1 && !file.is_sealed() {
        return Err(damaged(path, "it has no checksum".into()));
    }
    let mut header: Header = serde_json::from_str(note).map_err(unreadable)?;
    Notes {
        classes: header.classes,
        normalization: header.normalization,
        thresholds: header.thresholds,
    } = Notes::of(file)?;
    // The checksum of a newer file covers the position; that of an older file is checked only here.
    if let Some(problem) = header.position.problem() {
        return Err(damaged(path, problem));
    }
    if let Err(problem) = header.config.check() {
        return Err(damaged(
            path,
            format!("its settings make no sense: {problem}"),
        ));
    }
    Ok(header)
}

fn damaged(path: &Path, reason: String) -> CheckpointError {
    CheckpointError::Damaged {
        path: path.to_path_buf(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_evaluation_of_an_older_checkpoint_is_so_by_its_top1_error() {
        let best: Best = serde_json::from_str(r#"{"step":50,"top1_error":0.25}"#).unwrap();
        assert_eq!(
            (best.step, best.by, best.score),
            (50, BestBy::Top1Error, 0.25)
        );
        let again = serde_json::to_string(&best).unwrap();
        assert_eq!(again, r#"{"step":50,"by":"top1_error","score":0.25}"#);
        assert_eq!(serde_json::from_str::<Best>(&again).unwrap(), best);
    }

    #[test]
    fn a_position_that_no_run_has_is_refused_with_its_numbers() {
        let sound = Position {
            step: 57,
            epoch: 2,
            epoch_step: 7,
            epoch_steps: Some(25),
            best: Some(Best {
                step: 50,
                by: BestBy::Top1Error,
                score: 0.25,
            }),
            ..Position::default()
        };
        assert_eq!(sound.problem(), None);
        let first = Position {
            step: 3,
            epoch_step: 3,
            ..Position::default()
        };
        assert_eq!(first.problem(), None);
        let end_of_epoch = Position {
            step: 75,
            epoch_step: 25,
            ..sound
        };
        assert_eq!(end_of_epoch.problem(), None);
        let by = BestBy::Top1Error;
        let bad = |step, score| Some(Best { step, by, score });
        for position in [
            Position { step: 55, ..sound },
            Position { epoch: 3, ..sound },
            Position {
                epoch_step: 6,
                ..sound
            },
            Position {
                epoch_step: u64::MAX,
                ..sound
            },
            Position {
                step: u64::MAX,
                ..sound
            },
            Position {
                epoch: u32::MAX,
                ..sound
            },
            Position {
                epoch_steps: Some(0),
                ..sound
            },
            Position {
                epoch_steps: Some(24),
                ..sound
            },
            Position {
                epoch_steps: None,
                ..sound
            },
            Position {
                step: u64::MAX,
                epoch_step: u64::MAX,
                ..Position::default()
            },
            Position {
                step: 32,
                epoch: 1,
                epoch_step: 30,
                epoch_steps: Some(2),
                ..Position::default()
            },
            Position {
                best: bad(u64::MAX, 0.25),
                ..sound
            },
            Position {
                best: bad(50, 1.25),
                ..sound
            },
            Position {
                best: bad(50, f64::NAN),
                ..sound
            },
        ] {
            assert!(position.problem().is_some(), "{position:?}");
        }
    }
}

//! What belongs to weights and is not a tensor.

use std::collections::BTreeMap;

use densenet_plan::Plan;
use serde::de::DeserializeOwned;

use super::{TensorFile, WeightsError};
use crate::Normalization;

/// The note with the names of the classes, as a list in JSON.
const CLASSES: &str = "densenet.classes";
/// The note with the normalisation: an object of `mean` and `std`, a number for each channel.
const NORMALIZATION: &str = "densenet.normalization";
/// The note with the thresholds, a list of a number for each class, or null.
const THRESHOLDS: &str = "densenet.thresholds";
/// The notes that [`Notes`] holds.
pub(super) const HELD: [&str; 3] = [CLASSES, NORMALIZATION, THRESHOLDS];

/// What a file of weights says beside its tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notes {
    /// The names of the classes, in the order of their labels; empty if they have none.
    pub classes: Vec<String>,
    /// How pictures were normalised in training.
    pub normalization: Option<Normalization>,
    /// For each class the probability from which on it is present, of independent classes; `None`
    /// for a class without a threshold, such as one that no picture had. Empty without thresholds.
    pub thresholds: Vec<Option<f32>>,
}

impl Notes {
    /// The notes of a file. A checkpoint has the classes of its network, or else those of its data.
    ///
    /// # Errors
    /// When a note is not as it should be.
    pub fn of(file: &TensorFile) -> Result<Self, WeightsError> {
        let normalization: Option<Normalization> = read(file, NORMALIZATION)?;
        if let Some(own) = &normalization
            && let Some(reason) = own.problem()
        {
            return Err(refused(file, NORMALIZATION, reason));
        }
        let thresholds: Vec<Option<f32>> = read(file, THRESHOLDS)?.unwrap_or_default();
        let mut chosen = thresholds.iter().flatten();
        if let Some(wrong) = chosen.find(|own| !(0.0..=1.0).contains(*own)) {
            return Err(refused(
                file,
                THRESHOLDS,
                format!("{wrong} is not a probability"),
            ));
        }
        let classes = file.classes()?;
        let (named, given) = (classes.len(), thresholds.len());
        if given > 0 && named > 0 && named != given {
            return Err(refused(
                file,
                THRESHOLDS,
                format!("it has {given} numbers for {named} classes"),
            ));
        }
        Ok(Self {
            classes,
            normalization,
            thresholds,
        })
    }

    /// As in a file of a network. The plan may name the classes if the notes do not.
    pub(super) fn lines_for(&self, plan: &Plan) -> BTreeMap<String, String> {
        let mut notes = self.clone();
        if notes.classes.is_empty() {
            let names = plan.class_names().iter();
            notes.classes = names.map(ToString::to_string).collect();
        }
        notes.lines()
    }

    /// As in a file.
    pub(crate) fn lines(&self) -> BTreeMap<String, String> {
        let mut lines = BTreeMap::new();
        let mut add = |note: &str, value: serde_json::Value| {
            lines.insert(note.to_string(), value.to_string());
        };
        if !self.classes.is_empty() {
            add(CLASSES, self.classes.iter().map(String::as_str).collect());
        }
        if let Some(Normalization { mean, std }) = &self.normalization {
            add(
                NORMALIZATION,
                serde_json::json!({ "mean": mean, "std": std }),
            );
        }
        if !self.thresholds.is_empty() {
            add(THRESHOLDS, self.thresholds.iter().copied().collect());
        }
        lines
    }
}

impl TensorFile {
    /// The names of the classes, in the order of their labels; empty if the file does not list
    /// them. A checkpoint has those of its network, or else those of its data.
    ///
    /// # Errors
    /// When they are not a list of names.
    pub fn classes(&self) -> Result<Vec<String>, WeightsError> {
        /// Earlier checkpoints have them in their own note.
        #[derive(serde::Deserialize)]
        struct Checkpoint {
            #[serde(default)]
            classes: Vec<String>,
        }
        if let Some(classes) = read(self, CLASSES)? {
            return Ok(classes);
        }
        let Some(note) = self.checkpoint_note() else {
            return Ok(Vec::new());
        };
        match serde_json::from_str(note) {
            Ok(Checkpoint { classes }) => Ok(classes),
            Err(error) => Err(refused(self, CLASSES, error.to_string())),
        }
    }
}

fn read<T: DeserializeOwned>(
    file: &TensorFile,
    note: &'static str,
) -> Result<Option<T>, WeightsError> {
    let read = file.note(note).map(serde_json::from_str).transpose();
    read.map_err(|error| refused(file, note, error.to_string()))
}

fn refused(file: &TensorFile, note: &'static str, reason: String) -> WeightsError {
    WeightsError::Note {
        path: file.path().to_path_buf(),
        note,
        reason,
    }
}

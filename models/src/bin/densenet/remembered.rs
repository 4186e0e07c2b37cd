//! Options that the files of a run remember, each as a number or a word in a JSON note.

use std::error::Error;

use densenet_runtime::weights::TensorFile;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Options that are `None` if they are not given.
pub trait Remembered: Serialize + DeserializeOwned {
    /// The note's key in a file of weights.
    const NOTE: &'static str;

    /// As in a file.
    fn words(&self) -> String {
        Value::Object(given(self)).to_string()
    }

    /// The options that a file remembers, replaced by those that are given, and their differences
    /// in words. A file that remembers no options differs in nothing.
    fn after(&self, file: &TensorFile) -> Result<(Self, Vec<String>), Box<dyn Error>> {
        let own = given(self);
        let refused = |reason: String| {
            let path = file.path().display();
            format!("{path}, its note {}: {reason}", Self::NOTE)
        };
        let Some(note) = file.note(Self::NOTE) else {
            return Ok((serde_json::from_value(Value::Object(own))?, Vec::new()));
        };
        let mut all: Map<String, Value> =
            serde_json::from_str(note).map_err(|error| refused(error.to_string()))?;
        let mut differences = Vec::new();
        for (key, now) in own {
            let before = all.insert(key.clone(), now.clone());
            if before.as_ref() != Some(&now) {
                let before = before.as_ref().map_or("not given".to_string(), shown);
                let option = option(&key);
                differences.push(format!("{option} was {before} and is {}", shown(&now)));
            }
        }
        let all = serde_json::from_value(Value::Object(all));
        Ok((
            all.map_err(|error| refused(error.to_string()))?,
            differences,
        ))
    }

    /// The options that others do not have, as on a command line.
    fn besides(&self, others: &Self) -> String {
        let others = given(others);
        let own = given(self).into_iter();
        let own = own.filter(|(key, _)| !others.contains_key(key));
        let own = own.map(|(key, value)| format!("{} {}", option(&key), shown(&value)));
        own.collect::<Vec<_>>().join(", ")
    }
}

/// An option as it is given on a command line.
fn option(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// The options that are given.
fn given<T: Serialize>(options: &T) -> Map<String, Value> {
    // This cannot fail: they are numbers and words.
    let fields = serde_json::to_value(options).unwrap_or_default();
    let fields = fields.as_object().cloned().unwrap_or_default();
    let given = fields.into_iter();
    given.filter(|(_, value)| !value.is_null()).collect()
}

/// A value as it is given on a command line.
fn shown(value: &Value) -> String {
    match value {
        Value::String(word) => word.clone(),
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(shown).collect();
            values.join(" ")
        }
        other => other.to_string(),
    }
}

//! The pooled features of pictures, in a file.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use densenet_runtime::weights::{NamedTensor, TensorFile};
use serde_json::Value;

use crate::table::CsvTable;

/// The tensor of a safetensors file: pictures x features.
const TENSOR: &str = "features";
/// The note with the paths of the pictures, a JSON list.
const PATHS: &str = "paths";

/// A file of features that is being written.
pub enum Features {
    /// A line for each picture.
    Csv(Box<CsvTable>),
    /// One tensor, with the paths in its notes.
    Safetensors {
        file: PathBuf,
        width: usize,
        paths: Vec<Value>,
        values: Vec<f32>,
    },
}

impl Features {
    /// Begins a file, in the format of its extension, for this many features of each picture.
    pub fn create(file: &Path, width: usize) -> Result<Self, Box<dyn Error>> {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => {
                let names: Vec<_> = (0..width).map(|index| format!("feature {index}")).collect();
                Ok(Self::Csv(Box::new(CsvTable::create(file, &names)?)))
            }
            Some("safetensors") => Ok(Self::Safetensors {
                file: file.to_path_buf(),
                width,
                paths: Vec::new(),
                values: Vec::new(),
            }),
            _ => Err(format!(
                "--features {}: the name must end in .safetensors or .csv, which decides the \
                    format",
                file.display()
            )
            .into()),
        }
    }

    /// Adds a picture.
    pub fn add(&mut self, path: &str, features: &[f32]) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Csv(table) => table.write(path, features),
            Self::Safetensors { paths, values, .. } => {
                paths.push(path.into());
                values.extend_from_slice(features);
                Ok(())
            }
        }
    }

    /// Writes what is left.
    pub fn finish(self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Csv(table) => table.finish(),
            Self::Safetensors {
                file,
                width,
                paths,
                values,
            } => {
                let tensor = NamedTensor::new(TENSOR, [paths.len(), width], &values);
                let notes = BTreeMap::from([(PATHS.into(), Value::Array(paths).to_string())]);
                Ok(TensorFile::write(file, [tensor], notes)?)
            }
        }
    }
}

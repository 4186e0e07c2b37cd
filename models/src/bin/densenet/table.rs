//! A CSV file of numbers for each picture.

use std::error::Error;
use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A file with a line for each picture: its path, and numbers.
pub struct CsvTable {
    path: PathBuf,
    file: csv::Writer<File>,
}

impl CsvTable {
    /// Begins a file, with the names of the numbers.
    pub fn create(path: &Path, names: &[String]) -> Result<Self, Box<dyn Error>> {
        let file = csv::Writer::from_path(path)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let path = path.to_path_buf();
        let mut own = Self { path, file };
        let names = names.iter().map(String::as_str);
        own.record(std::iter::once("path").chain(names))?;
        Ok(own)
    }

    /// Adds a picture.
    pub fn write(&mut self, path: &str, numbers: &[impl Display]) -> Result<(), Box<dyn Error>> {
        let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        self.record(std::iter::once(path).chain(numbers.iter().map(String::as_str)))
    }

    fn record<'a>(&mut self, cells: impl Iterator<Item = &'a str>) -> Result<(), Box<dyn Error>> {
        let written = self.file.write_record(cells);
        written.map_err(|error| format!("cannot write {}: {error}", self.path.display()).into())
    }

    /// Writes what is left.
    pub fn finish(mut self) -> Result<(), Box<dyn Error>> {
        let written = self.file.flush();
        written.map_err(|error| format!("cannot write {}: {error}", self.path.display()).into())
    }
}

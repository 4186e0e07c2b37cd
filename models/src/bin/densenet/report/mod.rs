//! The report of an evaluation: one HTML file that needs nothing else.
//!
//! Its numbers are those of the measures' JSON: each is a `<data>` element with all digits and its
//! place in the JSON.

mod charts;
mod classes;
mod curves;
mod gallery;
mod html;
mod overview;
mod picture;
mod plot;

use std::error::Error;
use std::path::{Path, PathBuf};

use densenet_runtime::train::Predictions;
use serde_json::Value;

use crate::infer;
use crate::pictures::Set;
use crate::saved::Saved;
use crate::seen::fresh_folder;
use html::escape;

/// The file in the report's folder.
const FILE: &str = "index.html";

/// The contents of a report.
pub struct Report<'a> {
    /// The network.
    pub saved: &'a Saved,
    /// The pictures.
    pub set: &'a Set,
    /// The names of the classes.
    pub names: &'a [String],
    /// What the network said of those that could be read, and what they are.
    pub answers: &'a Predictions,
    /// The index of each of these in the set.
    pub indices: &'a [usize],
    /// The measures, as `--json` has them.
    pub measures: &'a Value,
    /// The probability from which on each class applies, where a picture may have several.
    pub thresholds: &'a [f32],
    /// How the network runs.
    pub options: &'a infer::InferenceOptions,
}

/// The folder of a report, which is new.
pub fn folder(path: &Path) -> Result<PathBuf, String> {
    fresh_folder("--report", path)?;
    Ok(path.to_path_buf())
}

impl Report<'_> {
    /// Writes the page; returns its path.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
        let file = folder.join(FILE);
        let page = self.page()?;
        std::fs::write(&file, page)
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        Ok(file)
    }

    fn page(&self) -> Result<String, Box<dyn Error>> {
        let probabilities = self.answers.probabilities();
        let sections = [
            overview::section(self),
            classes::section(self),
            curves::section(self),
            gallery::section(self, &probabilities)?,
        ];
        let name = escape(&self.saved.name);
        Ok(format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <meta name=\"color-scheme\" content=\"light dark\"/>\n\
             <link rel=\"icon\" href=\"data:,\"/>\n\
             <title>{name}: evaluation</title>\n<style>\n{}</style>\n</head>\n<body>\n\
             <header><h1>{name}: evaluation</h1>\n\
             <nav aria-label=\"Sections\"><a href=\"#overview\">Overview</a> \
             <a href=\"#classes\">Classes</a> <a href=\"#curves\">Curves</a> \
             <a href=\"#pictures\">Pictures</a></nav></header>\n<main>\n{}</main>\n</body>\n</html>\n",
            include_str!("style.css"),
            sections.concat(),
        ))
    }
}

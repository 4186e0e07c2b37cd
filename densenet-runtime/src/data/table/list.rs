//! Lists: a path in each line, and perhaps a label.

use std::path::Path;

use super::{Labels, ParsedTable, Row, cells::Names, columns::Columns};
use crate::data::DataError;

pub(super) fn parse(
    file: &Path,
    text: &str,
    columns: &Columns,
    labelled: bool,
) -> Result<ParsedTable, DataError> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty());
    let mut rows = Vec::new();
    let mut labels = Vec::new();
    let mut first_without = None;
    for (line, entry) in lines {
        let (path, label) = match labelled {
            true => divided(entry),
            false => (entry, None),
        };
        rows.push(Row {
            path: format!("{path}{}", columns.suffix).into(),
            line,
        });
        match label {
            Some(label) => labels.push((line, label)),
            None => {
                first_without.get_or_insert(line);
            }
        }
    }
    if let (Some(without), Some((with, _))) = (first_without, labels.first()) {
        return Err(DataError::table(
            file,
            without,
            None,
            format!(
                "has no label, but line {with} has one; write each line as `path label`, or use a CSV file if paths have spaces"
            ),
        ));
    }
    if labels.is_empty() {
        return Ok(ParsedTable {
            columns: columns.clone(),
            classes: columns.classes.clone(),
            rows,
            labels: Labels::None,
            groups: None,
        });
    }
    let names = Names::parse(file, None, labels.iter().copied(), columns)?;
    Ok(ParsedTable::named(columns.clone(), rows, names, None))
}

/// The path and the label of a line: what is before and after its last tab, or else its last space.
fn divided(line: &str) -> (&str, Option<&str>) {
    let parts = line.rsplit_once('\t').or_else(|| line.rsplit_once(' '));
    match parts {
        Some((path, label)) => (path.trim_end(), Some(label.trim_start())),
        None => (line, None),
    }
}

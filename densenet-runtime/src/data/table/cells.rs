//! The contents of a cell: a number for a class, or names of classes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{Labels, columns::Columns, columns::LabelKind};
use crate::data::{DataError, nearest};

/// Between the names in a cell.
const SEPARATOR: char = '|';

/// Whether a cell says that its label is unknown.
pub(super) fn is_unknown(cell: &str) -> bool {
    cell.is_empty() || cell.eq_ignore_ascii_case("nan") || cell.parse::<f32>() == Ok(-1.0)
}

/// A label from 0 to 1, or NaN if it is unknown; `None` if it is neither.
pub(super) fn number(cell: &str) -> Option<f32> {
    if is_unknown(cell) {
        return Some(f32::NAN);
    }
    let value = cell.parse().ok()?;
    (0.0..=1.0).contains(&value).then_some(value)
}

/// The labels of cells with names.
pub(super) struct Names {
    pub(super) kind: LabelKind,
    pub(super) classes: Vec<String>,
    pub(super) labels: Labels,
}

impl Names {
    /// Reads the cells of a column, each with its line. If no kind of labels is requested, pictures
    /// may have several classes if any cell has several.
    pub(super) fn parse<'a>(
        file: &Path,
        column: Option<&str>,
        cells: impl Iterator<Item = (usize, &'a str)> + Clone,
        asked: &Columns,
    ) -> Result<Self, DataError> {
        let refuse = |line, reason| DataError::table(file, line, column, reason);
        let has_several = cells.clone().any(|(_, cell)| cell.contains(SEPARATOR));
        let kind = asked.kind.unwrap_or(match has_several {
            true => LabelKind::Independent,
            false => LabelKind::Exclusive,
        });
        let names = |cell: &'a str| match kind {
            LabelKind::Exclusive => vec![cell],
            LabelKind::Independent => cell.split(SEPARATOR).map(str::trim).collect(),
        };
        let is_none = |name: &str| asked.no_class.as_deref() == Some(name);
        let classes = if asked.classes.is_empty() {
            let known = cells.clone().filter(|(_, cell)| !is_unknown(cell));
            let names: BTreeSet<&str> = known.flat_map(|(_, cell)| names(cell)).collect();
            let names = names
                .into_iter()
                .filter(|name| !name.is_empty() && !is_none(name));
            names.map(str::to_owned).collect()
        } else {
            asked.classes.clone()
        };
        if classes.is_empty() {
            return Err(DataError::table(
                file,
                None,
                column,
                "no label names a class".to_owned(),
            ));
        }
        let indices: BTreeMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
        let mut once = BTreeSet::new();
        let twice = classes.iter().filter(|name| !once.insert(*name));
        let twice: BTreeSet<&str> = twice.map(String::as_str).collect();
        let class = |line, name: &str| {
            if twice.contains(name) {
                let reason = format!(
                    "several classes are called `{name}`; give each a name of its own in the weights"
                );
                return Err(refuse(line, reason));
            }
            indices.get(name).copied().ok_or_else(|| {
                let reason = match name {
                    "" => "a name is empty; remove a separator that is left over".to_owned(),
                    _ => format!(
                        "`{name}` is not one of the classes{}",
                        nearest::suggestion(name, &classes)
                    ),
                };
                refuse(line, reason)
            })
        };
        let labels = match kind {
            LabelKind::Exclusive => {
                let mut labels = Vec::new();
                for (line, cell) in cells {
                    if is_unknown(cell) && !indices.contains_key(cell) {
                        return Err(refuse(
                            line,
                            format!(
                                "`{cell}` is not a class, but each picture needs one; remove the \
                                    line, or let classes be independent, any of which may be \
                                    unknown"
                            ),
                        ));
                    }
                    labels.push(class(line, cell)?);
                }
                Labels::Classes(labels)
            }
            LabelKind::Independent => {
                let mut labels = Vec::new();
                for (line, cell) in cells {
                    let start = labels.len();
                    if is_unknown(cell) {
                        labels.resize(start + classes.len(), f32::NAN);
                        continue;
                    }
                    labels.resize(start + classes.len(), 0.0);
                    for name in names(cell) {
                        if !is_none(name) {
                            labels[start + class(line, name)? as usize] = 1.0;
                        }
                    }
                }
                Labels::Independent(labels)
            }
        };
        Ok(Self {
            kind,
            classes,
            labels,
        })
    }
}

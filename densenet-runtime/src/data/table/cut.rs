//! The labels and groups in the columns of a sheet.

use super::{
    Labels, ParsedTable, Row,
    cells::{Names, number},
    columns::{Columns, LabelKind},
};
use crate::data::{DataError, nearest, sheet::Sheet};

/// The default names of the column of paths, in any case; the first of these counts.
const PATHS: [&str; 5] = ["path", "image", "file", "filename", "image index"];
/// The default names of a column with names of classes, in any case.
const NAMES: [&str; 5] = ["label", "labels", "class", "classes", "finding labels"];

impl Columns {
    /// Reads these columns of a sheet.
    pub(super) fn cut(&self, sheet: &Sheet<'_>, labelled: bool) -> Result<ParsedTable, DataError> {
        let path = self.path_in(sheet)?;
        let group = self.group.as_deref();
        let group = group.map(|name| find(sheet, name, "groups")).transpose()?;
        let rows = self.rows(sheet, path)?;
        let groups = group.map(|column| groups(sheet, column)).transpose()?;
        let columns = Self {
            path: Some(sheet.name(path).to_owned()),
            ..self.clone()
        };
        let labels = match labelled {
            true => self.labels_in(sheet, path, group)?,
            false => Vec::new(),
        };
        let columns = Self {
            labels: labels
                .iter()
                .map(|&column| sheet.name(column).to_owned())
                .collect(),
            ..columns
        };
        if labels.is_empty() {
            return Ok(ParsedTable {
                classes: self.classes.clone(),
                columns,
                rows,
                labels: Labels::None,
                groups,
            });
        }
        if let &[column] = &labels[..]
            && self.is_of_names(sheet, column)
        {
            let cells = sheet.column(column);
            let names = Names::parse(sheet.file, Some(sheet.name(column)), cells, &columns)?;
            return Ok(ParsedTable::named(columns, rows, names, groups));
        }
        if self.no_class.is_some() {
            let columns = columns.labels.iter().map(String::as_str);
            let reason = format!(
                "it has a column for each class ({}), so no name stands for none of them; leave that name out, and \
                    its column if it is not a class",
                nearest::listed(columns)
            );
            return Err(DataError::table(sheet.file, None, None, reason));
        }
        let kind = self.kind.unwrap_or(LabelKind::Independent);
        let classes = columns.labels.clone();
        if !self.classes.is_empty() && self.classes != classes {
            return Err(DataError::table(
                sheet.file,
                None,
                None,
                format!(
                    "the columns of labels are {}, but the classes are {}; name the columns in the order of the classes",
                    nearest::listed(classes.iter().map(String::as_str)),
                    nearest::listed(self.classes.iter().map(String::as_str)),
                ),
            ));
        }
        Ok(ParsedTable {
            columns: Self {
                kind: Some(kind),
                classes: classes.clone(),
                ..columns
            },
            labels: match kind {
                LabelKind::Independent => Labels::Independent(numbers(sheet, &labels)?),
                LabelKind::Exclusive => Labels::Classes(one_hot(sheet, &labels)?),
            },
            classes,
            rows,
            groups,
        })
    }

    fn path_in(&self, sheet: &Sheet<'_>) -> Result<usize, DataError> {
        if let Some(name) = &self.path {
            return find(sheet, name, "paths");
        }
        called(sheet, &PATHS).ok_or_else(|| {
            let names = nearest::listed(sheet.header.iter());
            let semicolons = sheet.header.len() == 1 && names.contains(';');
            DataError::table(
                sheet.file,
                None,
                None,
                match semicolons {
                    true => format!(
                        "its first line has one column, {names}; put commas between the cells"
                    ),
                    false => format!(
                        "no column of paths was found among {names}; call it `path`, or name it"
                    ),
                },
            )
        })
    }

    fn rows(&self, sheet: &Sheet<'_>, column: usize) -> Result<Vec<Row>, DataError> {
        let mut rows = Vec::with_capacity(sheet.records.len());
        for (line, path) in sheet.column(column) {
            let reason = match path {
                "" => "the path is empty; remove the line",
                _ if path.contains('\n') => "the path goes over several lines: a quote may be open",
                _ => {
                    rows.push(Row {
                        path: format!("{path}{}", self.suffix).into(),
                        line,
                    });
                    continue;
                }
            };
            return Err(sheet.refuse(line, column, reason.to_owned()));
        }
        Ok(rows)
    }

    fn labels_in(
        &self,
        sheet: &Sheet<'_>,
        path: usize,
        group: Option<usize>,
    ) -> Result<Vec<usize>, DataError> {
        if !self.labels.is_empty() {
            let columns = self.labels.iter();
            return columns.map(|name| find(sheet, name, "labels")).collect();
        }
        if !self.classes.is_empty() {
            let columns = self.classes.iter();
            let columns = columns.map(|class| find(sheet, class, "labels"));
            if let Ok(columns) = columns.collect() {
                return Ok(columns);
            }
        }
        if let Some(column) = called(sheet, &NAMES) {
            return Ok(vec![column]);
        }
        let others = 0..sheet.header.len();
        let others = others.filter(|&column| column != path && Some(column) != group);
        let others: Vec<_> = others.collect();
        for &column in &others {
            // Reports two columns of one name.
            find(sheet, sheet.name(column), "labels")?;
        }
        Ok(others)
    }

    fn is_of_names(&self, sheet: &Sheet<'_>, column: usize) -> bool {
        let name = sheet.name(column);
        // Numbers refer to the class of their column's name.
        let other_classes = !self.classes.is_empty() && self.classes != [name];
        // A single class would leave nothing to distinguish.
        let exclusive = self.kind == Some(LabelKind::Exclusive);
        let is_number = |(_, cell)| number(cell).is_some();
        other_classes
            || exclusive
            || is_called(name, &NAMES)
            || !sheet.column(column).all(is_number)
    }
}

fn is_called(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The column that has the first of some names.
fn called(sheet: &Sheet<'_>, names: &[&str]) -> Option<usize> {
    names.iter().find_map(|known| {
        let mut header = sheet.header.iter();
        header.position(|name| name.eq_ignore_ascii_case(known))
    })
}

/// The column of a name.
fn find(sheet: &Sheet<'_>, name: &str, what: &str) -> Result<usize, DataError> {
    let columns = sheet.header.iter().enumerate();
    let mut found = columns.filter(|(_, column)| *column == name);
    let refuse = |reason| Err(DataError::table(sheet.file, None, None, reason));
    match (found.next(), found.next()) {
        (Some((column, _)), None) => Ok(column),
        (Some((a, _)), Some((b, _))) => refuse(format!(
            "columns {} and {} are both called `{name}`; rename one",
            a + 1,
            b + 1
        )),
        (None, _) => {
            let columns: Vec<_> = sheet.header.iter().collect();
            refuse(format!(
                "has no column `{name}` for {what}{}",
                nearest::suggestion(name, &columns)
            ))
        }
    }
}

fn groups(sheet: &Sheet<'_>, column: usize) -> Result<Vec<Box<str>>, DataError> {
    let cells = sheet.column(column).map(|(line, group)| match group {
        "" => Err(sheet.refuse(
            line,
            column,
            "the group is empty; name one, if only of this picture".to_owned(),
        )),
        _ => Ok(group.into()),
    });
    cells.collect()
}

/// Pictures x columns.
fn numbers(sheet: &Sheet<'_>, columns: &[usize]) -> Result<Vec<f32>, DataError> {
    let mut values = Vec::with_capacity(sheet.records.len().saturating_mul(columns.len()));
    for (line, record) in &sheet.records {
        for &column in columns {
            let cell = record.get(column).unwrap_or_default();
            let value = number(cell).ok_or_else(|| {
                sheet.refuse(*line, column, format!(
                    "`{cell}` is neither a number from 0 (no) to 1 (yes) nor unknown (empty, `nan` or `-1`); correct it, or name the columns of labels if this is not one"
                ))
            })?;
            values.push(value);
        }
    }
    Ok(values)
}

/// The column of each picture that is 1.
fn one_hot(sheet: &Sheet<'_>, columns: &[usize]) -> Result<Vec<u32>, DataError> {
    let values = numbers(sheet, columns)?;
    let mut labels = Vec::with_capacity(sheet.records.len());
    for ((line, _), row) in sheet.records.iter().zip(values.chunks_exact(columns.len())) {
        let mut yes = (0..).zip(row).filter(|&(_, &value)| value == 1.0);
        match (yes.next(), yes.next()) {
            (Some((class, _)), None) if row.iter().all(|&value| value == 0.0 || value == 1.0) => {
                labels.push(class);
            }
            _ => {
                return Err(DataError::table(sheet.file, *line, None,
                    "exactly one class should be 1 and the others 0; correct it, or let classes be independent"
                        .to_owned(),
                ));
            }
        }
    }
    Ok(labels)
}

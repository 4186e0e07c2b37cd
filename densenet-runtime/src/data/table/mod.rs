//! Pictures and labels that a table lists: a CSV file, or a list.

mod cells;
mod columns;
mod cut;
mod list;
mod pictures;

use std::{
    collections::HashMap,
    fs,
    path::{Component, Path, PathBuf},
};

use super::{
    DataError, nearest,
    sheet::{self, Sheet},
};
use cells::Names;

pub use columns::{Columns, LabelKind};
pub use pictures::TablePictures;

/// Pictures by their paths, with labels and groups, as a file lists them.
///
/// Files called `.csv` have cells between commas, `.tsv` between tabs, and begin with a line of
/// the columns' names. [`Columns`] says which columns are read. Labels are
///
/// - one column for each class: 1 for yes, 0 for no, a share between them, or unknown, which is an
///   empty cell, `nan` or `-1`;
/// - or one column with the name of the picture's class, or with several names, as in `cat|dog`.
///
/// Files with any other name are lists: a path in each line, followed by a space or tab and the
/// class, or the classes, as in `cats/1.jpg cat`. The classes of names are sorted; those of columns
/// have the columns' order.
///
/// Text is UTF-8, with or without a byte order mark. Space around cells is dropped, and so are empty
/// lines.
#[derive(Clone, Debug)]
pub struct Table {
    file: PathBuf,
    root: PathBuf,
    columns: Columns,
    classes: Vec<String>,
    rows: Vec<Row>,
    labels: Labels,
    groups: Option<Vec<Box<str>>>,
}

/// A picture, and where the file lists it.
#[derive(Clone, Debug)]
struct Row {
    path: Box<str>,
    line: usize,
}

/// The labels of a table's pictures.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Labels {
    /// No labels: the pictures are for prediction.
    None,
    /// The class of each picture.
    Classes(Vec<u32>),
    /// Whether each class applies, pictures x classes: from 0 (no) to 1 (yes), or NaN if unknown.
    Independent(Vec<f32>),
}

impl Table {
    /// Reads a file. Its paths are relative to the file's folder, unless another
    /// [root](Self::rooted) is set. No picture is looked for yet.
    ///
    /// # Errors
    /// When the file cannot be read, a column is missing, or a cell is not as described; the error
    /// names the line and the column.
    pub fn read(file: impl AsRef<Path>, columns: &Columns) -> Result<Self, DataError> {
        Self::parse(file.as_ref(), columns, true)
    }

    /// Reads only the paths (and the groups, if `columns` names them): pictures for prediction. In
    /// a list, each line is a path.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_paths(file: impl AsRef<Path>, columns: &Columns) -> Result<Self, DataError> {
        Self::parse(file.as_ref(), columns, false)
    }

    fn parse(file: &Path, columns: &Columns, labelled: bool) -> Result<Self, DataError> {
        let bytes = fs::read(file).map_err(DataError::io("read", file))?;
        let text = sheet::text(file, &bytes)?;
        let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
        let found = match extension.to_str() {
            Some("csv") => columns.cut(&Sheet::parse(file, text, b',')?, labelled)?,
            Some("tsv") => columns.cut(&Sheet::parse(file, text, b'\t')?, labelled)?,
            _ => list::parse(file, text, columns, labelled)?,
        };
        let table = Self {
            file: file.to_owned(),
            root: file.parent().unwrap_or(Path::new("")).to_owned(),
            columns: found.columns,
            classes: found.classes,
            rows: found.rows,
            labels: found.labels,
            groups: found.groups,
        };
        table.check_paths()?;
        Ok(table)
    }

    /// Sets the folder that the paths are relative to.
    pub fn rooted(self, root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            ..self
        }
    }

    /// Number of pictures, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "no table is empty")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The labels.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The group of each picture, such as the patient, if a column of groups was named.
    pub fn groups(&self) -> Option<&[Box<str>]> {
        self.groups.as_deref()
    }

    /// The path of a picture as the file has it; `None` if there is no such picture.
    pub fn path(&self, index: usize) -> Option<&str> {
        self.rows.get(index).map(|row| &*row.path)
    }

    /// The file of a picture; `None` if there is no such picture.
    pub fn picture(&self, index: usize) -> Option<PathBuf> {
        Some(self.root.join(self.path(index)?))
    }

    /// The columns that were found, with the classes, to read another table in the same way.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Checks that all pictures exist.
    ///
    /// # Errors
    /// When some are missing; the error counts them and names the first.
    pub fn check_pictures(&self) -> Result<(), DataError> {
        let missing = self.missing();
        if missing.is_empty() {
            return Ok(());
        }
        let first = missing.iter().take(nearest::FEW);
        Err(DataError::MissingPictures {
            table: self.file.clone(),
            root: self.root.clone(),
            missing: missing.len(),
            pictures: self.len(),
            first: first
                .map(|&index| (self.rows[index].line, self.rows[index].path.to_string()))
                .collect(),
        })
    }

    /// The table without the missing pictures, and their number.
    ///
    /// # Errors
    /// When all are missing.
    pub fn with_pictures_there(mut self) -> Result<(Self, usize), DataError> {
        let missing = self.missing();
        if missing.len() == self.len() {
            self.check_pictures()?;
        }
        let mut is_there = vec![true; self.len()];
        for &index in &missing {
            is_there[index] = false;
        }
        retain(&mut self.rows, 1, &is_there);
        match &mut self.labels {
            Labels::None => {}
            Labels::Classes(classes) => retain(classes, 1, &is_there),
            Labels::Independent(values) => retain(values, self.classes.len(), &is_there),
        }
        if let Some(groups) = &mut self.groups {
            retain(groups, 1, &is_there);
        }
        Ok((self, missing.len()))
    }

    fn missing(&self) -> Vec<usize> {
        let is_missing = |row: &Row| !self.root.join(&*row.path).is_file();
        let rows = self.rows.iter().enumerate();
        rows.filter(|(_, row)| is_missing(row))
            .map(|(index, _)| index)
            .collect()
    }

    fn check_paths(&self) -> Result<(), DataError> {
        let mut lines = HashMap::with_capacity(self.rows.len());
        for Row { path, line } in &self.rows {
            if let Some(before) = lines.insert(plain(Path::new(&**path)), *line) {
                return Err(DataError::table(
                    &self.file,
                    *line,
                    self.columns.path.as_deref(),
                    format!(
                        "`{path}` is also in line {before}; keep one line for each picture, with all its labels"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// A path without what changes nothing: `./` and doubled separators.
pub(super) fn plain(path: &Path) -> PathBuf {
    let parts = path.components();
    parts.filter(|part| *part != Component::CurDir).collect()
}

/// Keeps some of the items, `each` for every entry of `is_kept`.
fn retain<T>(items: &mut Vec<T>, each: usize, is_kept: &[bool]) {
    let mut index = 0;
    items.retain(|_| {
        let kept = is_kept[index / each.max(1)];
        index += 1;
        kept
    });
}

/// The parsed contents of a file.
struct ParsedTable {
    columns: Columns,
    classes: Vec<String>,
    rows: Vec<Row>,
    labels: Labels,
    groups: Option<Vec<Box<str>>>,
}

impl ParsedTable {
    fn named(
        columns: Columns,
        rows: Vec<Row>,
        names: Names,
        groups: Option<Vec<Box<str>>>,
    ) -> Self {
        let Names {
            kind,
            classes,
            labels,
        } = names;
        Self {
            columns: Columns {
                kind: Some(kind),
                classes: classes.clone(),
                ..columns
            },
            classes,
            rows,
            labels,
            groups,
        }
    }
}

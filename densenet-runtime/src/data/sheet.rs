//! A file of cells: lines with equal numbers of them. The first line names the columns.

use std::path::Path;

use csv::{ReaderBuilder, StringRecord};

use super::DataError;

/// The cells of a CSV file.
pub(super) struct Sheet<'a> {
    pub(super) file: &'a Path,
    /// The names of the columns.
    pub(super) header: StringRecord,
    /// The records, each with the line where it begins, counted from 1.
    pub(super) records: Vec<(usize, StringRecord)>,
}

/// The text of a file, without a byte order mark.
pub(super) fn text<'a>(file: &Path, bytes: &'a [u8]) -> Result<&'a str, DataError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(DataError::table(
            file,
            None,
            None,
            "is UTF-16; save it as UTF-8".to_owned(),
        ));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        DataError::table(
            file,
            line,
            None,
            "is not UTF-8; save the file as UTF-8".to_owned(),
        )
    })?;
    if text.trim().is_empty() {
        return Err(DataError::table(
            file,
            None,
            None,
            "is empty; it should list pictures".to_owned(),
        ));
    }
    Ok(text)
}

impl<'a> Sheet<'a> {
    pub(super) fn parse(file: &'a Path, text: &str, delimiter: u8) -> Result<Self, DataError> {
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut records = Vec::new();
        let mut record = StringRecord::new();
        loop {
            match reader.read_record(&mut record) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    return Err(DataError::table(file, None, None, error.to_string()));
                }
            }
            let line = record.position().map_or(0, |at| line(text, at));
            // A line of spaces has one cell, which is empty.
            if record.len() > 1 || record.get(0).is_some_and(|cell| !cell.is_empty()) {
                records.push((line, record.clone()));
            }
        }
        let mut records = records.into_iter();
        let Some((_, header)) = records.next() else {
            return Err(DataError::table(
                file,
                None,
                None,
                "is empty; its first line should name the columns".to_owned(),
            ));
        };
        let records: Vec<_> = records.collect();
        for (line, record) in &records {
            if record.len() != header.len() {
                return Err(DataError::table(file, *line, None, ragged(record, &header)));
            }
        }
        if records.is_empty() {
            return Err(DataError::table(
                file,
                None,
                None,
                "has no line after the one that names the columns; it should list pictures"
                    .to_owned(),
            ));
        }
        Ok(Self {
            file,
            header,
            records,
        })
    }

    /// The cells of a column, each with its line.
    pub(super) fn column(&self, column: usize) -> impl Iterator<Item = (usize, &str)> + Clone {
        let records = self.records.iter();
        records.map(move |(line, record)| (*line, record.get(column).unwrap_or_default()))
    }

    /// The name of a column.
    pub(super) fn name(&self, column: usize) -> &str {
        self.header.get(column).unwrap_or_default()
    }

    /// The error of a cell.
    pub(super) fn refuse(&self, line: usize, column: usize, reason: String) -> DataError {
        DataError::table(self.file, line, Some(self.name(column)), reason)
    }
}

/// The line where a record begins. Its position is where the record before it ends, and there may
/// be empty lines between the two.
fn line(text: &str, at: &csv::Position) -> usize {
    let start = usize::try_from(at.byte()).unwrap_or(usize::MAX);
    let between = text.as_bytes().get(start..).unwrap_or_default().iter();
    let empty = between.take_while(|byte| matches!(byte, b'\r' | b'\n'));
    let line = usize::try_from(at.line()).unwrap_or(usize::MAX);
    line.saturating_add(empty.filter(|&&byte| byte == b'\n').count())
}

fn ragged(record: &StringRecord, header: &StringRecord) -> String {
    let hint = if record.iter().any(|cell| cell.contains('\n')) {
        "one of them goes over several lines: a quote may be open"
    } else if record.len() > header.len() {
        "put quotes around a cell that has a comma"
    } else {
        "complete the line or remove it"
    };
    let cells = if record.len() == 1 { "cell" } else { "cells" };
    format!(
        "has {} {cells}, but the first line names {} columns; {hint}",
        record.len(),
        header.len()
    )
}

//! The file of a split: a line for each picture, with its path and its set.

use std::{collections::HashMap, fs, path::Path};

use super::Split;
use crate::{
    data::{
        DataError, Dataset, nearest,
        sheet::{self, Sheet},
    },
    files,
};

const HEADER: [&str; 2] = ["path", "set"];
const TRAIN: &str = "train";
const VAL: &str = "val";

impl Split {
    /// Writes the split as a CSV file with the columns `path` and `set` (`train` or `val`), by the
    /// [names](Dataset::name) of the images. The file is written completely or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dataset: &dyn Dataset, file: impl AsRef<Path>) -> Result<(), DataError> {
        let file = file.as_ref();
        let failed = |error: csv::Error| DataError::io("write", file)(error.into());
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(HEADER).map_err(failed)?;
        for (image, &validates) in self.validates.iter().enumerate().take(dataset.len()) {
            let set = if validates { VAL } else { TRAIN };
            let name = dataset.name(image);
            writer.write_record([&*name, set]).map_err(failed)?;
        }
        let bytes = writer
            .into_inner()
            .map_err(|error| DataError::io("write", file)(error.into_error()))?;
        files::replace(file, &bytes).map_err(DataError::io("write", file))
    }

    /// Reads the split of a dataset from a file that [`write`](Self::write) wrote, or another
    /// program in the same form.
    ///
    /// # Errors
    /// When the file cannot be read or is not of this form, when it does not have every image of
    /// the dataset exactly once and no others, or when a set is empty.
    pub fn read(dataset: &dyn Dataset, file: impl AsRef<Path>) -> Result<Self, DataError> {
        let file = file.as_ref();
        let bytes = fs::read(file).map_err(DataError::io("read", file))?;
        let sheet = Sheet::parse(file, sheet::text(file, &bytes)?, b',')?;
        let refuse = |reason: String| DataError::table(file, None, None, reason);
        if !sheet.header.iter().eq(HEADER) {
            return Err(refuse(format!(
                "its columns are {}, but a split has `path` and `set`",
                nearest::listed(sheet.header.iter())
            )));
        }
        // Names that are not UTF-8 may be the same for several images: their lines are in the same order. The last
        // come first, as they are popped.
        let mut images: HashMap<String, Vec<usize>> = HashMap::with_capacity(dataset.len());
        for image in (0..dataset.len()).rev() {
            let name = dataset.name(image).trim().to_owned();
            images.entry(name).or_default().push(image);
        }
        let mut validates = vec![None; dataset.len()];
        let mut strangers = Vec::new();
        for ((line, path), (_, set)) in sheet.column(0).zip(sheet.column(1)) {
            let set = match set {
                TRAIN => false,
                VAL => true,
                _ => {
                    let reason = format!("the set `{set}` is neither `{TRAIN}` nor `{VAL}`");
                    return Err(sheet.refuse(line, 1, reason));
                }
            };
            let Some(own) = images.get_mut(path) else {
                strangers.push(path);
                continue;
            };
            let Some(image) = own.pop() else {
                let reason = format!("`{path}` is in the split twice; keep one line");
                return Err(sheet.refuse(line, 0, reason));
            };
            validates[image] = Some(set);
        }
        if !strangers.is_empty() {
            return Err(refuse(format!(
                "{} of its pictures are not in the data, such as {}; it is a split of other data, or pictures were removed since: draw a new split",
                strangers.len(),
                nearest::listed(strangers.iter().copied().take(nearest::FEW))
            )));
        }
        let missing = (0..dataset.len()).filter(|&image| validates[image].is_none());
        let missing: Vec<_> = missing.map(|image| dataset.name(image)).collect();
        if !missing.is_empty() {
            return Err(refuse(format!(
                "{} pictures of the data are not in it, such as {}; add them, or draw a new split",
                missing.len(),
                nearest::listed(missing.iter().map(String::as_str).take(nearest::FEW))
            )));
        }
        let validates: Vec<bool> = validates.into_iter().flatten().collect();
        for (set, validate) in [(TRAIN, false), (VAL, true)] {
            if !validates.contains(&validate) {
                return Err(refuse(format!("no picture is in the set `{set}`")));
            }
        }
        Ok(Self { validates })
    }
}

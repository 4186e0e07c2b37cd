//! The pictures of a table as a dataset.

use std::path::PathBuf;

use super::{Labels, Table};
use crate::data::{DataError, PictureFiles, Pictures, Target, nearest};

/// The pictures that a [`Table`] lists, with its labels.
///
/// ```no_run
/// use densenet_runtime::data::{Columns, Pictures, Table, TablePictures};
///
/// # fn main() -> Result<(), densenet_runtime::data::DataError> {
/// let columns = Columns { group: Some("patient".into()), ..Columns::default() };
/// let table = Table::read("labels.csv", &columns)?.rooted("pictures");
/// table.check_pictures()?;
/// let pictures = TablePictures::new(table, Pictures::sized([224, 224])?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TablePictures {
    table: Table,
    pictures: Pictures,
    /// The target of a picture without labels.
    unknown: Vec<f32>,
}

impl TablePictures {
    /// Serves the pictures of a table, which are read and preprocessed as `pictures` says. If a
    /// table has no labels, all classes that [`Columns`](super::Columns) names are unknown.
    ///
    /// # Errors
    /// When the table has no classes.
    pub fn new(table: Table, pictures: Pictures) -> Result<Self, DataError> {
        let classes = table.classes().len();
        if classes == 0 {
            let columns = &table.columns;
            let path = columns.path.as_deref();
            return Err(DataError::table(
                &table.file,
                None,
                None,
                format!(
                    "has no labels beside the paths{}; add a column for each class, or a column `label` of names",
                    path.map(|path| format!(" in {}", nearest::listed([path].into_iter())))
                        .unwrap_or_default()
                ),
            ));
        }
        let files = table.rows.iter().map(|row| table.root.join(&*row.path));
        Ok(Self {
            pictures: pictures.as_needed_by(files),
            table,
            unknown: vec![f32::NAN; classes],
        })
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }
}

impl PictureFiles for TablePictures {
    fn pictures(&self) -> &Pictures {
        &self.pictures
    }

    fn count(&self) -> usize {
        self.table.len()
    }

    fn file(&self, index: usize) -> PathBuf {
        self.table.root.join(&*self.table.rows[index].path)
    }

    fn name_of(&self, index: usize) -> String {
        self.table.rows[index].path.to_string()
    }

    fn class_names(&self) -> &[String] {
        self.table.classes()
    }

    fn target_of(&self, index: usize) -> Target<'_> {
        let classes = self.unknown.len();
        match &self.table.labels {
            Labels::None => Target::Independent(&self.unknown),
            Labels::Classes(labels) => Target::Class(labels[index]),
            Labels::Independent(values) => {
                Target::Independent(&values[index * classes..][..classes])
            }
        }
    }
}

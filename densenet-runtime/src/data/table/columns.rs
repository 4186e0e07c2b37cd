//! Which columns of a table are read.

/// Which columns of a [`Table`](super::Table) are read, and how. Other columns are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The column of paths. By default the one named `path`, `image`, `file`, `filename` or `image
    /// index`, in any case.
    pub path: Option<String>,
    /// A suffix for each path, such as `.jpg` for names without an extension.
    pub suffix: String,
    /// The columns of labels: one for each class, or one with names of classes. A single column has
    /// names unless all its cells are numbers from 0 to 1, or unknown. By default
    ///
    /// 1. the columns of the `classes`, if all have one,
    /// 2. or the column of names that is called `label`, `labels`, `class`, `classes` or `finding
    ///    labels`, in any case,
    /// 3. or all except those of paths and groups.
    pub labels: Vec<String>,
    /// The column of groups, such as patients: [`Split`](crate::data::Split) keeps a group
    /// together.
    pub group: Option<String>,
    /// Whether a picture has one class or several. By default, columns of classes are independent,
    /// and names are if a cell has several.
    pub kind: Option<LabelKind>,
    /// The classes in their order. By default those of the columns, in their order, or all names
    /// that occur, sorted.
    pub classes: Vec<String>,
    /// The name that stands for none of the classes if pictures may have several, such as `No
    /// Finding`. An empty cell says that all are unknown.
    pub no_class: Option<String>,
}

/// How the classes of a picture relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// A picture has exactly one class.
    Exclusive,
    /// Each class applies to a picture or does not, whatever the others do, or it is unknown.
    Independent,
}

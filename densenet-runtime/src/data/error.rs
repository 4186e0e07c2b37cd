//! Errors of datasets and loaders.

use std::path::{Path, PathBuf};

/// Why data could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder is not there.
    #[error("{path} is missing: {wanted}", path = .path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What should be there, and the alternatives.
        wanted: String,
    },
    /// The system refused to read or write.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried, such as "read".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A dataset's folder has no class folders.
    #[error(
        "{path} has no class folders; pictures are expected in {path}/CLASS/*.jpg (or .png, .tif, ..)",
        path = .path.display()
    )]
    NoClasses {
        /// The folder.
        path: PathBuf,
    },
    /// A class has no pictures.
    #[error(
        "class folder {path} has no pictures (.jpg, .png, .tif, ..); add some or remove the folder",
        path = .path.display()
    )]
    EmptyClass {
        /// The folder of the class.
        path: PathBuf,
    },
    /// A picture cannot be decoded.
    #[error("{path} is {reason}", path = .path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: PictureError,
    },
    /// A file is not in the format that its name promises.
    #[error("{path} is not {format}: {reason}", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format, such as "an IDX file of images".
        format: &'static str,
        /// The difference.
        reason: String,
    },
    /// A table of pictures is malformed.
    #[error("{path}{at}: {reason}", path = .path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// The position, such as ", line 3, column `cat`"; empty if the error concerns the whole file.
        at: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Pictures that a table lists are missing.
    #[error(
        "{missing} of the {pictures} pictures in {table} are missing in {root}, such as {}; name \
            the folder that their paths are relative to, or leave the missing ones out",
        shown(.first), table = .table.display(), root = folder(.root)
    )]
    MissingPictures {
        /// The table.
        table: PathBuf,
        /// The folder that its paths are relative to.
        root: PathBuf,
        /// The number of missing ones.
        missing: usize,
        /// The expected number.
        pictures: usize,
        /// The line and path of the first missing ones.
        first: Vec<(usize, String)>,
    },
    /// Groups, or pictures, are in both training and validation.
    #[error(
        "{count} {what} are in both training and validation, such as {first}; validation on \
            training data means nothing. Move each to one set, or have the split drawn"
    )]
    InBoth {
        /// "groups" or "pictures".
        what: &'static str,
        /// How many.
        count: usize,
        /// The names of the first.
        first: String,
    },
    /// A file is shorter or longer than its header says.
    #[error("{path} has {found} bytes of data, but {expected} are expected{why}; download it again",
        path = .path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes expected.
        expected: usize,
        /// Bytes found.
        found: usize,
        /// Where the expectation comes from, such as " for 10 images of 28x28".
        why: String,
    },
    /// There are more images than labels, or fewer.
    #[error(
        "{images} images ({images_at}) but {labels} labels ({labels_at}); they belong to different sets"
    )]
    Counts {
        /// Number of images.
        images: usize,
        /// Where they come from.
        images_at: String,
        /// Number of labels.
        labels: usize,
        /// Where they come from.
        labels_at: String,
    },
    /// A label is not one of the classes.
    #[error("{at}: image {index} has label {label}, but there are {classes} classes (labels 0 to {last})",
        last = .classes.saturating_sub(1)
    )]
    Label {
        /// Where the label comes from.
        at: String,
        /// Which image.
        index: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// Two sets that belong together have different classes.
    #[error(
        "the classes of training and validation differ: {difference}; both need the same class folders"
    )]
    ClassesDiffer {
        /// The difference.
        difference: String,
    },
    /// The shape of the images is not that of the network's input.
    #[error(
        "the data's images are {found:?} (channels, height, width), but the network's input is {expected:?}"
    )]
    Shape {
        /// The network's input.
        expected: [usize; 3],
        /// The images' shape.
        found: [usize; 3],
    },
    /// The data has more classes than the network.
    #[error("the data has {found} classes, but the network has {expected}; set `classes: {found}`")]
    TooManyClasses {
        /// Classes of the network.
        expected: usize,
        /// Classes of the data.
        found: usize,
    },
    /// An argument is out of range or contradicts another.
    #[error("{0}")]
    Options(String),
    /// No replacement for a broken image could be read, either.
    #[error("{tried} images in a row cannot be read; the last: {last}")]
    AllBroken {
        /// The number of tries.
        tried: usize,
        /// The error of the last one.
        #[source]
        last: Box<DataError>,
    },
    /// A worker of the loader panicked.
    #[error("loading image {index} panicked: {message}; this is a bug in the dataset")]
    Panic {
        /// Which image.
        index: usize,
        /// The panic's message.
        message: String,
    },
    /// The loader's threads ended before their work was done.
    #[error("the threads that load images ended early; this is a bug in the loader")]
    WorkersGone,
}

/// A folder for a message; the current one if a file is given only by its name.
fn folder(path: &Path) -> String {
    match path.as_os_str().is_empty() {
        true => "the current folder".to_owned(),
        false => path.display().to_string(),
    }
}

/// Paths with their lines, for a message.
fn shown(first: &[(usize, String)]) -> String {
    let shown = first.iter();
    let shown: Vec<_> = shown
        .map(|(line, path)| format!("`{path}` (line {line})"))
        .collect();
    shown.join(", ")
}

impl DataError {
    /// Whether only one image is affected, so that others can still be served.
    pub fn is_about_one_image(&self) -> bool {
        matches!(self, Self::Picture { .. } | Self::Io { .. })
    }

    /// An error of a table, of a line or column where they are known.
    pub(crate) fn table(
        file: &Path,
        line: impl Into<Option<usize>>,
        column: Option<&str>,
        reason: String,
    ) -> Self {
        let line = line.into().map(|line| format!(", line {line}"));
        let column = column.map(|column| format!(", column `{column}`"));
        Self::Table {
            path: file.to_owned(),
            at: line.unwrap_or_default() + &column.unwrap_or_default(),
            reason,
        }
    }

    /// For `map_err`: adds the path and what was tried to the system's error.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Why a picture cannot be decoded. The message continues "the picture is" or "FILE is".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// It is damaged, truncated, or of another kind.
    #[error("not a whole picture: {0}")]
    Broken(String),
    /// It is of a kind that cannot be read, such as "an arithmetic-coded JPEG".
    #[error("{0}, which cannot be read; save it as a baseline JPEG or as PNG")]
    Unsupported(String),
    /// It has more pixels than the limit.
    #[error(
        "too large: {width} x {height} pixels exceed the limit of {limit}; make it smaller, \
         or raise the limit (`ImageFolder::max_pixels`, `data::read_within`)"
    )]
    TooLarge {
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
        /// The limit.
        limit: u64,
    },
}

//! Pictures in folders named after their classes.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use super::{
    Augmentation, DataError, EvaluationCrop, Normalization, PictureFiles, Pictures, Target,
    check_same_classes, geometry::RandomResizedCrop, pictures::is_picture,
};

/// Pictures at `DIR/CLASS/*`, in subfolders, too, as in torchvision's `ImageFolder`: files that end
/// in `.jpg`, `.jpeg`, `.png`, `.ppm`, `.bmp`, `.pgm`, `.tif`, `.tiff`, `.webp`, `.gif`, `.pbm` or
/// `.pnm`, in any case. Classes are sorted by name and labelled from 0, and pictures are
/// sorted by path. Files and folders whose names begin with a dot are left out. So are files of
/// other formats, which are [counted](ImageFolder::left_out). A dangling symbolic link counts as a
/// picture that cannot be read.
///
/// [`Pictures`] says how pictures are read and preprocessed.
#[derive(Clone)]
pub struct ImageFolder {
    root: PathBuf,
    classes: Vec<String>,
    files: Vec<File>,
    left_out: BTreeMap<String, usize>,
    pictures: Pictures,
}

/// A picture's path, relative to the root, since the paths of millions of pictures are held in memory.
#[derive(Clone, Debug)]
struct File {
    path: Box<Path>,
    label: u32,
}

impl ImageFolder {
    /// Lists the pictures of a folder, which are served in RGB as `height` x `width`.
    ///
    /// # Errors
    /// When the folder is missing or cannot be read, has no class folders, or a class has no
    /// pictures.
    pub fn open(dir: impl AsRef<Path>, size: [usize; 2]) -> Result<Self, DataError> {
        Self::open_as(dir, Pictures::sized(size)?)
    }

    /// Lists the pictures of a folder, which are read and preprocessed as `pictures` says. If it
    /// leaves that open, the first file decides whether images are bytes or floats
    /// ([`Pictures::as_needed_by`]).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_as(dir: impl AsRef<Path>, pictures: Pictures) -> Result<Self, DataError> {
        let root = dir.as_ref();
        let classes = classes(root)?;
        let mut files = Vec::new();
        let mut left_out = BTreeMap::new();
        for (label, class) in (0..).zip(&classes) {
            let before = files.len();
            for path in class_pictures(root, class, &mut left_out)? {
                files.push(File { path, label });
            }
            if files.len() == before {
                return Err(DataError::EmptyClass {
                    path: root.join(class),
                });
            }
        }
        Ok(Self {
            root: root.to_owned(),
            classes: classes
                .iter()
                .map(|class| class.to_string_lossy().into_owned())
                .collect(),
            pictures: pictures.as_needed_by(files.iter().map(|file| root.join(&file.path))),
            files,
            left_out,
        })
    }

    /// Opens `DIR/train` and `DIR/val`. The images of both are bytes, or both are floats.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when the two have different classes.
    pub fn train_and_val(
        dir: impl AsRef<Path>,
        size: [usize; 2],
    ) -> Result<(Self, Self), DataError> {
        Self::train_and_val_as(dir, Pictures::sized(size)?)
    }

    /// Opens `DIR/train` and `DIR/val`, whose pictures are read and preprocessed as `pictures` says.
    ///
    /// # Errors
    /// As [`train_and_val`](Self::train_and_val).
    pub fn train_and_val_as(
        dir: impl AsRef<Path>,
        pictures: Pictures,
    ) -> Result<(Self, Self), DataError> {
        let train = Self::open_as(dir.as_ref().join("train"), pictures)?;
        let val = Self::open_as(dir.as_ref().join("val"), train.pictures.clone())?;
        check_same_classes(&train, &val)?;
        Ok((train, val))
    }

    /// As [`Pictures::augmented`].
    ///
    /// # Errors
    /// As [`Pictures::augmented`].
    pub fn augmented(self, augmentation: Augmentation) -> Result<Self, DataError> {
        Ok(Self {
            pictures: self.pictures.augmented(augmentation)?,
            ..self
        })
    }

    /// As [`Pictures::cropped`].
    pub fn cropped(self, crop: RandomResizedCrop) -> Self {
        self.with(|pictures| pictures.cropped(crop))
    }

    /// As [`Pictures::evaluated`].
    pub fn evaluated(self, evaluation: impl Into<EvaluationCrop>) -> Self {
        self.with(|pictures| pictures.evaluated(evaluation))
    }

    /// As [`Pictures::normalized`].
    pub fn normalized(self, normalization: Normalization) -> Self {
        self.with(|pictures| pictures.normalized(normalization))
    }

    /// As [`Pictures::max_pixels`].
    pub fn max_pixels(self, pixels: u64) -> Self {
        self.with(|pictures| pictures.max_pixels(pixels))
    }

    fn with(self, change: impl FnOnce(Pictures) -> Pictures) -> Self {
        Self {
            pictures: change(self.pictures),
            ..self
        }
    }

    /// The file of a picture; `None` if there is no such picture.
    pub fn path(&self, index: usize) -> Option<PathBuf> {
        let file = self.files.get(index)?;
        Some(self.root.join(&file.path))
    }

    /// The number of files in class folders that are not pictures, by their extension in lower
    /// case, such as "webp"; files without an extension count under "".
    pub fn left_out(&self) -> &BTreeMap<String, usize> {
        &self.left_out
    }
}

impl fmt::Debug for ImageFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageFolder")
            .field("root", &self.root)
            .field("files", &self.files.len())
            .field("classes", &self.classes.len())
            .field("pictures", &self.pictures)
            .finish_non_exhaustive()
    }
}

impl PictureFiles for ImageFolder {
    fn pictures(&self) -> &Pictures {
        &self.pictures
    }

    fn count(&self) -> usize {
        self.files.len()
    }

    fn file(&self, index: usize) -> PathBuf {
        self.root.join(&self.files[index].path)
    }

    fn name_of(&self, index: usize) -> String {
        self.files[index].path.to_string_lossy().into_owned()
    }

    fn class_names(&self) -> &[String] {
        &self.classes
    }

    fn target_of(&self, index: usize) -> Target<'_> {
        Target::Class(self.files[index].label)
    }
}

/// The pictures in a folder and its subfolders, in the order of their paths, as [`ImageFolder`] finds them.
///
/// # Errors
/// When the folder is missing or cannot be read.
pub fn pictures_in(dir: impl AsRef<Path>) -> Result<Vec<PathBuf>, DataError> {
    let dir = dir.as_ref();
    let found = class_pictures(dir, Path::new(""), &mut BTreeMap::new())?;
    Ok(found.iter().map(|path| dir.join(path)).collect())
}

/// The class folders, by name.
fn classes(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !root.is_dir() {
        return Err(DataError::Missing {
            path: root.to_owned(),
            wanted: "it should be a folder with one folder of pictures for each class".to_owned(),
        });
    }
    let mut classes = Vec::new();
    for entry in fs::read_dir(root).map_err(DataError::io("list", root))? {
        let name = entry.map_err(DataError::io("list", root))?.file_name();
        if !is_hidden(Path::new(&name)) && root.join(&name).is_dir() {
            classes.push(PathBuf::from(name));
        }
    }
    if classes.is_empty() {
        return Err(DataError::NoClasses {
            path: root.to_owned(),
        });
    }
    classes.sort_unstable();
    Ok(classes)
}

/// The pictures of a class, by path from the root. Counts the other files.
fn class_pictures(
    root: &Path,
    class: &Path,
    left_out: &mut BTreeMap<String, usize>,
) -> Result<Vec<Box<Path>>, DataError> {
    let dir = root.join(class);
    let mut pictures = Vec::new();
    let entries = WalkDir::new(&dir)
        .follow_links(true)
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.path()));
    for entry in entries {
        let path = match entry {
            Ok(entry) if entry.file_type().is_file() => entry.into_path(),
            Ok(_) => continue,
            Err(error) => match dangling_link(&error) {
                // Listed, so that reading it is reported as for any other broken picture.
                Some(link) => link.to_owned(),
                None => {
                    let path = error.path().unwrap_or(&dir).to_owned();
                    return Err(DataError::io("list", path)(error.into()));
                }
            },
        };
        if is_picture(&path) {
            pictures.push(path.strip_prefix(root).unwrap_or(&path).into());
        } else if !is_hidden(&path) {
            *left_out.entry(extension(&path)).or_default() += 1;
        }
    }
    pictures.sort_unstable();
    Ok(pictures)
}

/// The path of a dangling symbolic link.
fn dangling_link(error: &walkdir::Error) -> Option<&Path> {
    let path = error.path()?;
    let is_gone = error.io_error()?.kind() == ErrorKind::NotFound;
    (is_gone && path.is_symlink()).then_some(path)
}

fn extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default();
    extension.to_string_lossy().to_lowercase()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

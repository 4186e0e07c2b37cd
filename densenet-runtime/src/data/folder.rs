//! Pictures in folders named after their classes.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::ErrorKind,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use super::{
    DataError, Dataset, Draw, Evaluation, MAX_PIXELS, Normalization, PictureError,
    check_same_classes, decode, evaluation, geometry::RandomResizedCrop, resize,
};

/// Pictures at `DIR/CLASS/*.jpg`, also `.jpeg` and `.png`, in any case and in folders further
/// down, as torchvision's `ImageFolder`: classes are sorted by name and labelled from 0, pictures
/// are sorted by path. Files and folders whose names begin with a dot are left out, and so are files
/// of other formats, which are [counted](ImageFolder::left_out). A symbolic link to nothing is a
/// picture that cannot be read.
///
/// Training shows a random part of a picture ([`RandomResizedCrop`]), mirrored half of the time.
/// Evaluation shows the [centre or ten crops](Evaluation). Images are RGB, normalised with
/// ImageNet's mean and deviation unless [told otherwise](Self::normalized).
#[derive(Clone)]
pub struct ImageFolder {
    root: PathBuf,
    classes: Vec<String>,
    pictures: Vec<Picture>,
    left_out: BTreeMap<String, usize>,
    height: u32,
    width: u32,
    crop: RandomResizedCrop,
    evaluation: Evaluation,
    normalization: Normalization,
    max_pixels: u64,
}

/// Where a picture is. Folders of millions are held in memory, so paths are below the root.
#[derive(Clone, Debug)]
struct Picture {
    path: Box<Path>,
    label: u32,
}

impl ImageFolder {
    /// Looks for the pictures of a folder; they are served as `height` x `width`. No picture is
    /// read yet.
    ///
    /// # Errors
    /// When the folder is missing or cannot be read, has no class folders, or a class has no
    /// pictures.
    pub fn open(dir: impl AsRef<Path>, [height, width]: [usize; 2]) -> Result<Self, DataError> {
        let root = dir.as_ref();
        let (width, height) = evaluation::sides([height, width])?;
        let classes = classes(root)?;
        let mut pictures = Vec::new();
        let mut left_out = BTreeMap::new();
        for (label, class) in (0..).zip(&classes) {
            let before = pictures.len();
            for path in class_pictures(root, class, &mut left_out)? {
                pictures.push(Picture { path, label });
            }
            if pictures.len() == before {
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
            pictures,
            left_out,
            height,
            width,
            crop: RandomResizedCrop::default(),
            evaluation: Evaluation::default(),
            normalization: Normalization::imagenet(),
            max_pixels: MAX_PIXELS,
        })
    }

    /// Opens `DIR/train` and `DIR/val`.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when the two have different classes.
    pub fn train_and_val(
        dir: impl AsRef<Path>,
        size: [usize; 2],
    ) -> Result<(Self, Self), DataError> {
        let train = Self::open(dir.as_ref().join("train"), size)?;
        let val = Self::open(dir.as_ref().join("val"), size)?;
        check_same_classes(&train, &val)?;
        Ok((train, val))
    }

    /// Shows other parts of pictures in training.
    pub fn cropped(self, crop: RandomResizedCrop) -> Self {
        Self { crop, ..self }
    }

    /// Shows other parts of pictures in evaluation.
    pub fn evaluated(self, evaluation: Evaluation) -> Self {
        Self { evaluation, ..self }
    }

    /// Has the network see other numbers.
    pub fn normalized(self, normalization: Normalization) -> Self {
        Self {
            normalization,
            ..self
        }
    }

    /// Reads pictures of at most `pixels`, width times height; [`MAX_PIXELS`] unless told
    /// otherwise. Larger ones are [broken](super::OnBroken), and no memory is allocated for them.
    pub fn max_pixels(self, pixels: u64) -> Self {
        Self {
            max_pixels: pixels,
            ..self
        }
    }

    /// The file of a picture; none beyond the last.
    pub fn path(&self, index: usize) -> Option<PathBuf> {
        let picture = self.pictures.get(index)?;
        Some(self.root.join(&picture.path))
    }

    /// How many files in class folders are no pictures by their names, by extension in lower case,
    /// as "webp"; the empty one counts those that have none.
    pub fn left_out(&self) -> &BTreeMap<String, usize> {
        &self.left_out
    }

    fn show_random_part(
        &self,
        picture: &decode::Rgb,
        draw: &mut Draw,
        into: &mut [u8],
    ) -> Result<(), String> {
        let crop = self.crop.draw(picture.width, picture.height, draw);
        let mirrored = draw.coin();
        resize::crop_then_resize(picture, crop, self.width, self.height, into)?;
        if mirrored {
            resize::mirror(into, self.width as usize, 3);
        }
        Ok(())
    }
}

impl fmt::Debug for ImageFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageFolder")
            .field("root", &self.root)
            .field("pictures", &self.pictures.len())
            .field("classes", &self.classes.len())
            .field("shape", &self.shape())
            .field("crop", &self.crop)
            .field("evaluation", &self.evaluation)
            .finish_non_exhaustive()
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn shape(&self) -> [usize; 3] {
        [3, self.height as usize, self.width as usize]
    }

    fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    fn views(&self) -> usize {
        self.evaluation.views()
    }

    fn load(
        &self,
        index: usize,
        draw: Option<&mut Draw>,
        into: &mut [u8],
    ) -> Result<u32, DataError> {
        let Picture { path, label } = &self.pictures[index];
        let path = self.root.join(path);
        let picture = decode::read_within(&path, self.max_pixels)?;
        // What a panic leaves half done are the bytes and numbers of this image, which nobody uses.
        let shown = AssertUnwindSafe(|| {
            match draw {
                Some(draw) => self.show_random_part(&picture, draw, into),
                None => self
                    .evaluation
                    .write(&picture, self.width, self.height, into),
            }
            .map_err(PictureError::Broken)
        });
        decode::caught(shown).map_err(|reason| DataError::Picture { path, reason })?;
        Ok(*label)
    }
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

/// The pictures of a class, by path, from the root on. Counts what else there is.
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
                // Listed, so that whoever reads it hears of it as of other broken pictures.
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

/// The path of a symbolic link to nothing.
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

fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["jpg", "jpeg", "png"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

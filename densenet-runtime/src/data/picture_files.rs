//! Datasets of files.

use std::path::PathBuf;

use super::{DataError, Dataset, Depth, Normalization, Pictures, Rng, Target};

/// A [`Dataset`] of files, which are read and preprocessed as [`Pictures`] says. An implementation
/// gives their paths and targets.
///
/// ```
/// use std::path::PathBuf;
/// use densenet_runtime::data::{Dataset, PictureFiles, Pictures, Target};
///
/// /// Pictures without labels.
/// struct Unlabelled {
///     paths: Vec<PathBuf>,
///     pictures: Pictures,
///     classes: Vec<String>,
///     unknown: Vec<f32>,
/// }
///
/// impl PictureFiles for Unlabelled {
///     fn pictures(&self) -> &Pictures {
///         &self.pictures
///     }
///     fn count(&self) -> usize {
///         self.paths.len()
///     }
///     fn file(&self, index: usize) -> PathBuf {
///         self.paths[index].clone()
///     }
///     fn class_names(&self) -> &[String] {
///         &self.classes
///     }
///     fn target_of(&self, _: usize) -> Target<'_> {
///         Target::Independent(&self.unknown)
///     }
/// }
///
/// # fn main() -> Result<(), densenet_runtime::data::DataError> {
/// let images = Unlabelled {
///     paths: vec!["cat.jpg".into()],
///     pictures: Pictures::sized([224, 224])?,
///     classes: vec!["cat".into()],
///     unknown: vec![f32::NAN],
/// };
/// assert_eq!((images.shape(), images.name(0)), ([3, 224, 224], "cat.jpg".to_owned()));
/// # Ok(())
/// # }
/// ```
pub trait PictureFiles: Send + Sync {
    /// How the files are read and shown.
    fn pictures(&self) -> &Pictures;

    /// Number of files.
    fn count(&self) -> usize;

    /// The path of a file.
    ///
    /// # Panics
    /// May panic if `index` is not below [`count`](Self::count), as the methods below.
    fn file(&self, index: usize) -> PathBuf;

    /// What [`Dataset::name`] returns; by default the path.
    fn name_of(&self, index: usize) -> String {
        self.file(index).display().to_string()
    }

    /// What [`Dataset::classes`] returns.
    fn class_names(&self) -> &[String];

    /// What [`Dataset::target`] returns.
    fn target_of(&self, index: usize) -> Target<'_>;
}

impl<T: PictureFiles> Dataset for T {
    fn len(&self) -> usize {
        self.count()
    }

    fn classes(&self) -> &[String] {
        self.class_names()
    }

    fn target(&self, index: usize) -> Target<'_> {
        self.target_of(index)
    }

    fn name(&self, index: usize) -> String {
        self.name_of(index)
    }

    fn shape(&self) -> [usize; 3] {
        self.pictures().shape()
    }

    fn depth(&self) -> Depth {
        self.pictures().depth()
    }

    fn normalization(&self) -> &Normalization {
        self.pictures().normalization()
    }

    fn views(&self) -> usize {
        self.pictures().views()
    }

    fn load(&self, index: usize, rng: Option<&mut Rng>, into: &mut [u8]) -> Result<(), DataError> {
        self.pictures().load(&self.file(index), rng, into)
    }

    fn load_floats(
        &self,
        index: usize,
        rng: Option<&mut Rng>,
        into: &mut [f32],
    ) -> Result<(), DataError> {
        self.pictures().load_floats(&self.file(index), rng, into)
    }
}

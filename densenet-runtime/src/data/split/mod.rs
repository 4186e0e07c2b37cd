//! Splits images into training and validation if no folders do.

mod draw;
mod file;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::table::plain;
use super::{DataError, Dataset, Subset, Table, nearest};

/// The split of a dataset into training and validation.
///
/// ```no_run
/// use std::sync::Arc;
/// use densenet_runtime::data::{Dataset, ImageFolder, Split};
///
/// # fn main() -> Result<(), densenet_runtime::data::DataError> {
/// let pictures = ImageFolder::open("pictures", [224, 224])?;
/// let split = Split::draw(&pictures, None, 0.2, 1)?;
/// split.write(&pictures, "out/split.csv")?;
/// let (train, val) = split.divide(Arc::new(pictures))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Whether each image is for validation.
    validates: Vec<bool>,
}

impl Split {
    /// Draws a `share` of the images for validation, in (0, 1), so that each class has about this
    /// share. The same seed draws the same images on every machine.
    ///
    /// If each image has one class, the number of images is the share, rounded, and each class
    /// contributes its part, rounded up or down; a class with a single image is for training.
    /// Independent classes are divided one after another, the rarest first, and each image goes to
    /// the set that lacks more images of the class (iterative stratification, Sechidis et al.
    /// 2011); an image counts for the classes with a target of 0.5 or more.
    ///
    /// `groups` names the group of each image, such as the patient. A group is never divided: whole
    /// groups are assigned in the same way, and then moved as long as that brings the numbers of
    /// images and of each class nearer to the share.
    ///
    /// # Errors
    /// When the share is out of range, there are fewer than two images or groups, or `groups` does
    /// not have one name for each image.
    pub fn draw(
        dataset: &dyn Dataset,
        groups: Option<&[Box<str>]>,
        share: f64,
        seed: u64,
    ) -> Result<Self, DataError> {
        if !(share > 0.0 && share < 1.0) {
            return Err(DataError::Options(format!(
                "the share of validation is {share}; it must be above 0 and below 1, such as 0.2"
            )));
        }
        let groups = groups
            .map(|groups| numbered(groups, dataset.len()))
            .transpose()?;
        let (what, count) = match &groups {
            Some((_, count)) => ("groups", *count),
            None => ("images", dataset.len()),
        };
        if count < 2 {
            return Err(DataError::Options(format!(
                "training and validation need at least two {what}, but there is {count}"
            )));
        }
        let validates = match groups {
            None if draw::is_exclusive(dataset) => draw::by_class(dataset, share, seed),
            None => {
                let each: Vec<usize> = (0..dataset.len()).collect();
                draw::by_unit(dataset, &each, dataset.len(), share, seed)
            }
            Some((group_of, count)) => draw::by_unit(dataset, &group_of, count, share, seed),
        };
        Ok(Self { validates })
    }

    /// The indices of the images for training, in order.
    pub fn train(&self) -> Vec<usize> {
        self.images(false)
    }

    /// The indices of the images for validation, in order.
    pub fn val(&self) -> Vec<usize> {
        self.images(true)
    }

    fn images(&self, validates: bool) -> Vec<usize> {
        let all = self.validates.iter().enumerate();
        all.filter(|&(_, &own)| own == validates)
            .map(|(image, _)| image)
            .collect()
    }

    /// The images for training and those for validation.
    ///
    /// # Errors
    /// When the split is of a larger dataset.
    pub fn divide(&self, dataset: Arc<dyn Dataset>) -> Result<(Subset, Subset), DataError> {
        let train = Subset::new(Arc::clone(&dataset), self.train())?;
        Ok((train, Subset::new(dataset, self.val())?))
    }

    /// Checks that no group is in both sets.
    ///
    /// # Errors
    /// When one is; the error names the first of them. When `groups` does not have one name for
    /// each image.
    pub fn check_groups(&self, groups: &[Box<str>]) -> Result<(), DataError> {
        check_count(groups.len(), self.validates.len())?;
        let of = |validates: bool| {
            let all = groups.iter().zip(&self.validates);
            all.filter(move |&(_, &own)| own == validates)
                .map(|(group, _)| &**group)
        };
        check_disjoint("groups", of(false), of(true))
    }
}

/// Checks that two tables, of training and of validation, share no picture and no group.
///
/// # Errors
/// When they do; the error names the first in both.
pub fn check_apart(train: &Table, val: &Table) -> Result<(), DataError> {
    let (ours, theirs) = (pictures(train), pictures(val));
    let paths = ours.iter().map(String::as_str);
    check_disjoint("pictures", paths, theirs.iter().map(String::as_str))?;
    check_disjoint("groups", groups(train), groups(val))
}

/// The files of a table's pictures.
fn pictures(table: &Table) -> Vec<String> {
    let all = (0..table.len()).filter_map(|index| table.picture(index));
    all.map(|path| plain(&path).to_string_lossy().into_owned())
        .collect()
}

/// The groups of a table's pictures, if it has any.
fn groups(table: &Table) -> impl Iterator<Item = &str> {
    let groups = table.groups().unwrap_or_default().iter();
    groups.map(|group| &**group)
}

fn check_disjoint<'a>(
    what: &'static str,
    train: impl Iterator<Item = &'a str>,
    val: impl Iterator<Item = &'a str>,
) -> Result<(), DataError> {
    let train: BTreeSet<_> = train.collect();
    let both: BTreeSet<_> = val.filter(|name| train.contains(name)).collect();
    if both.is_empty() {
        return Ok(());
    }
    Err(DataError::InBoth {
        what,
        count: both.len(),
        first: nearest::listed(both.iter().copied().take(nearest::FEW)),
    })
}

fn check_count(groups: usize, images: usize) -> Result<(), DataError> {
    if groups == images {
        return Ok(());
    }
    Err(DataError::Options(format!(
        "there are {images} images, but names of groups for {groups}; each image needs the name \
            of its group"
    )))
}

/// Groups by number, from 0 on, and how many there are.
fn numbered(groups: &[Box<str>], images: usize) -> Result<(Vec<usize>, usize), DataError> {
    check_count(groups.len(), images)?;
    let mut numbers = HashMap::new();
    let numbered = groups.iter().map(|group| {
        let next = numbers.len();
        *numbers.entry(&**group).or_insert(next)
    });
    let numbered = numbered.collect();
    Ok((numbered, numbers.len()))
}

//! Weights and strata for imbalanced classes.

use super::{DataError, Dataset, Target, dataset::APPLIES, nearest};

/// The positive and negative labels of each class; a label between 0 and 1 counts in part for both,
/// an unknown one for neither.
struct Counts {
    yes: Vec<f64>,
    no: Vec<f64>,
}

impl Counts {
    fn of(dataset: &dyn Dataset) -> Self {
        let classes = dataset.classes().len();
        let (mut yes, mut no) = (vec![0.0; classes], vec![0.0; classes]);
        let mut of_one_class = 0.0;
        for image in 0..dataset.len() {
            match dataset.target(image) {
                Target::Class(class) => {
                    of_one_class += 1.0;
                    yes[class as usize] += 1.0;
                }
                Target::Independent(row) => {
                    for ((yes, no), &value) in yes.iter_mut().zip(&mut no).zip(row) {
                        if !value.is_nan() {
                            *yes += f64::from(value);
                            *no += 1.0 - f64::from(value);
                        }
                    }
                }
            }
        }
        if of_one_class > 0.0 {
            no = yes.iter().map(|yes| of_one_class - yes).collect();
        }
        Self { yes, no }
    }

    /// Checks that each class has labels of a kind.
    fn check(dataset: &dyn Dataset, labels: &[f64], kind: &str) -> Result<(), DataError> {
        let classes = dataset.classes().iter().zip(labels);
        let without = classes.filter(|(_, labels)| **labels == 0.0);
        let without: Vec<_> = without.map(|(class, _)| class.as_str()).collect();
        if without.is_empty() {
            return Ok(());
        }
        Err(DataError::Options(format!(
            "no known label says {kind} for {}, so no weight can balance it; leave the class out, \
                or set its weight",
            nearest::listed(without.into_iter())
        )))
    }
}

/// The weight of each class in a loss such that all classes have the same total weight: the number
/// of images, divided by that of the classes and by that of the class's images (scikit-learn's
/// "balanced"). The mean over the images is 1. For independent classes, positive labels count.
///
/// # Errors
/// When a class has no images.
pub fn class_weights(dataset: &dyn Dataset) -> Result<Vec<f32>, DataError> {
    let Counts { yes, .. } = Counts::of(dataset);
    Counts::check(dataset, &yes, "yes")?;
    let all: f64 = yes.iter().sum();
    let weight = |own: &f64| (all / (yes.len() as f64 * own)) as f32;
    Ok(yes.iter().map(weight).collect())
}

/// The weight of each class's positive labels in a loss such that positive and negative ones have
/// the same total weight: the number of negative labels, divided by that of positive ones. Unknown
/// labels do not count.
///
/// # Errors
/// When all known labels of a class say the same.
pub fn positive_weights(dataset: &dyn Dataset) -> Result<Vec<f32>, DataError> {
    let Counts { yes, no } = Counts::of(dataset);
    Counts::check(dataset, &yes, "yes")?;
    Counts::check(dataset, &no, "no")?;
    Ok(yes
        .iter()
        .zip(&no)
        .map(|(yes, no)| (no / yes) as f32)
        .collect())
}

/// The strata that balanced sampling draws from with equal probability: the images of each class
/// that has any. With independent classes, an image belongs to the rarest one that applies, and
/// images without any form a stratum of their own.
pub(super) fn strata(dataset: &dyn Dataset) -> Vec<Vec<u32>> {
    let Counts { yes, .. } = Counts::of(dataset);
    let mut strata = vec![Vec::new(); yes.len() + 1];
    for (image, index) in (0..dataset.len()).zip(0..) {
        let stratum = match dataset.target(image) {
            Target::Class(class) => class as usize,
            Target::Independent(row) => {
                let applying = (0..yes.len()).filter(|&class| row[class] >= APPLIES);
                let rarest = applying.min_by(|&a, &b| yes[a].total_cmp(&yes[b]));
                rarest.unwrap_or(yes.len())
            }
        };
        strata[stratum].push(index);
    }
    strata.retain(|stratum| !stratum.is_empty());
    strata
}

//! The checks that an executor of a plan can take targets.

use super::{ExecutorError, Step};
use crate::plan::{LossWeights, Targets};

/// How far the sum of an image's probabilities may be from 1.
const SLACK: f64 = 1e-3;

/// Checks that targets of each class are whole rows.
pub(super) fn check_rows(targets: Targets<'_>, classes: usize) -> Result<(), ExecutorError> {
    match targets {
        Targets::Probabilities(values) | Targets::Independent(values)
            if !values.len().is_multiple_of(classes) =>
        {
            Err(ExecutorError::TargetLength {
                found: values.len(),
                classes,
            })
        }
        _ => Ok(()),
    }
}

/// Checks that targets, in whole rows, are valid for a network with this many classes.
pub(super) fn check_targets(targets: Targets<'_>, classes: usize) -> Result<(), ExecutorError> {
    match targets {
        Targets::Classes(labels) => {
            let outside = labels.iter().position(|&label| label as usize >= classes);
            match outside.and_then(|index| Some((index, *labels.get(index)?))) {
                None => Ok(()),
                Some((index, label)) => Err(ExecutorError::Label {
                    index,
                    label,
                    classes,
                }),
            }
        }
        Targets::Probabilities(values) => {
            check_range(values, classes, false)?;
            for (image, row) in values.chunks_exact(classes).enumerate() {
                let sum: f64 = row.iter().map(|&value| f64::from(value)).sum();
                if (sum - 1.0).abs() > SLACK {
                    return Err(ExecutorError::Probabilities { image, sum });
                }
            }
            Ok(())
        }
        Targets::Independent(values) => check_range(values, classes, true),
    }
}

/// Checks that all values are in [0, 1], or NaN if that stands for unknown.
fn check_range(values: &[f32], classes: usize, unknown: bool) -> Result<(), ExecutorError> {
    let fits = |value: f32| (0.0..=1.0).contains(&value) || (unknown && value.is_nan());
    let outside = values.iter().enumerate().find(|(_, value)| !fits(**value));
    match outside {
        None => Ok(()),
        Some((index, &found)) => Err(ExecutorError::Target {
            image: index / classes,
            class: index % classes,
            found,
            unknown,
        }),
    }
}

/// Checks the weights of a loss, and their number if that of the classes is known.
pub(crate) fn check_loss_weights(
    weights: &LossWeights,
    classes: Option<usize>,
) -> Result<(), ExecutorError> {
    let kinds = [
        ("class weights", &weights.classes),
        ("positive weights", &weights.positive),
    ];
    for (what, values) in kinds {
        if values.is_empty() {
            continue;
        }
        if let Some(classes) = classes
            && values.len() != classes
        {
            return Err(ExecutorError::LossWeightCount {
                what,
                classes,
                found: values.len(),
            });
        }
        let wrong = |value: f32| !(value.is_finite() && value >= 0.0);
        let mut each = values.iter().enumerate();
        if let Some((class, &found)) = each.find(|(_, value)| wrong(**value)) {
            return Err(ExecutorError::LossWeight { what, class, found });
        }
    }
    Ok(())
}

/// Checks that the targets allow the smoothing of a step.
pub(crate) fn check_smoothing(targets: Targets<'_>, step: Step) -> Result<(), ExecutorError> {
    match targets {
        Targets::Independent(_) if step.label_smoothing != 0.0 => Err(ExecutorError::Smoothing {
            smoothing: step.label_smoothing,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(targets: Targets<'_>) -> String {
        let checked = check_rows(targets, 3).and_then(|()| check_targets(targets, 3));
        checked.unwrap_err().to_string()
    }

    #[test]
    fn targets_that_fit_are_taken() {
        check_targets(Targets::Classes(&[0, 2, 1]), 3).unwrap();
        check_targets(Targets::Probabilities(&[0.2, 0.3, 0.5, 1.0, 0.0, 0.0]), 3).unwrap();
        check_targets(Targets::Probabilities(&[0.2, 0.3, 0.5009]), 3).unwrap();
        check_targets(
            Targets::Independent(&[1.0, f32::NAN, 0.0, 1.0, 0.3, 1.0]),
            3,
        )
        .unwrap();
    }

    #[test]
    fn a_class_that_the_network_does_not_have_is_named() {
        assert_eq!(
            refused(Targets::Classes(&[0, 3])),
            "image 1 of the batch has label 3, but the network has 3 classes (labels 0 to 2)"
        );
    }

    #[test]
    fn a_target_out_of_range_is_named_with_its_image_and_class() {
        assert_eq!(
            refused(Targets::Probabilities(&[0.0, 1.0, 0.0, 0.0, -1.0, 2.0])),
            "image 1 of the batch has target -1 for class 1; a probability must be in [0, 1]"
        );
        assert_eq!(
            refused(Targets::Independent(&[0.0, 1.0, 1.5])),
            "image 0 of the batch has target 1.5 for class 2; it must be in [0, 1], or NaN if it is \
             unknown"
        );
    }

    #[test]
    fn a_probability_must_be_known() {
        let error = refused(Targets::Probabilities(&[0.5, f32::NAN, 0.5]));
        assert!(error.contains("target NaN for class 1"), "{error}");
        let error = refused(Targets::Independent(&[0.5, f32::INFINITY, 0.5]));
        assert!(error.contains("target inf for class 1"), "{error}");
    }

    #[test]
    fn probabilities_add_up_to_1() {
        let error = refused(Targets::Probabilities(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0]));
        assert!(
            error.starts_with("the probabilities of image 1 of the batch add up to 2, not to 1"),
            "{error}"
        );
    }

    #[test]
    fn a_row_that_is_cut_short_is_refused() {
        for targets in [
            Targets::Probabilities(&[0.0, 1.0, 0.0, 0.0]),
            Targets::Independent(&[0.0, 1.0, 0.0, 0.0]),
        ] {
            let error = refused(targets);
            assert!(
                error.starts_with("4 values are not a whole number"),
                "{error}"
            );
        }
    }

    #[test]
    fn weights_of_a_loss_are_one_a_class_finite_and_not_negative() {
        let of = |classes: &[f32], positive: &[f32]| {
            let weights = LossWeights {
                classes: classes.to_vec(),
                positive: positive.to_vec(),
            };
            check_loss_weights(&weights, Some(3)).map_err(|error| error.to_string())
        };
        assert_eq!(of(&[], &[]), Ok(()));
        assert_eq!(of(&[0.0, 1.0, 2.5], &[1.0; 3]), Ok(()));
        let error = of(&[1.0, 2.0], &[]).unwrap_err();
        assert!(error.starts_with("there are 2 class weights"), "{error}");
        let error = of(&[], &[1.0, -0.5, 1.0]).unwrap_err();
        assert!(
            error.contains("positive weights: class 1 has -0.5"),
            "{error}"
        );
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(of(&[1.0, 1.0, bad], &[]).is_err());
        }
    }

    #[test]
    fn independent_targets_are_not_smoothed() {
        let step = Step {
            label_smoothing: 0.1,
            ..Step::default()
        };
        let independent = Targets::Independent(&[1.0]);
        assert!(check_smoothing(independent, Step::default()).is_ok());
        assert!(check_smoothing(Targets::Probabilities(&[1.0]), step).is_ok());
        let error = check_smoothing(independent, step).unwrap_err().to_string();
        assert!(error.contains("label smoothing is 0.1"), "{error}");
    }
}

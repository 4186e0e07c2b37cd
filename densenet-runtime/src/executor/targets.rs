//! The checks that an executor of a plan can take targets.

use super::{ExecutorError, Step};
use crate::plan::Targets;

/// How far the probabilities of an image's classes may add up to something else than 1.
const SLACK: f64 = 1e-3;

/// Checks that targets are what a network of so many classes can be trained towards.
pub(super) fn check_targets(targets: Targets<'_>, classes: usize) -> Result<(), ExecutorError> {
    let rows = |values: &[f32]| match values.len().is_multiple_of(classes) {
        true => Ok(()),
        false => Err(ExecutorError::TargetLength {
            found: values.len(),
            classes,
        }),
    };
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
            rows(values)?;
            check_range(values, classes, false)?;
            for (image, row) in values.chunks_exact(classes).enumerate() {
                let sum: f64 = row.iter().map(|&value| f64::from(value)).sum();
                if (sum - 1.0).abs() > SLACK {
                    return Err(ExecutorError::Probabilities { image, sum });
                }
            }
            Ok(())
        }
        Targets::Independent(values) => {
            rows(values)?;
            check_range(values, classes, true)
        }
    }
}

/// Checks that all values are in [0, 1], or NaN where that means that they are unknown.
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

/// The labels of targets that are classes; the losses of the other kinds are not computed yet.
pub(crate) fn only_classes(targets: Targets<'_>) -> Result<&[u32], ExecutorError> {
    match targets {
        Targets::Classes(labels) => Ok(labels),
        Targets::Probabilities(_) | Targets::Independent(_) => Err(ExecutorError::Device(
            "only classes can be learned so far".into(),
        )),
    }
}

/// Checks that targets can be smoothed as a step asks for.
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
        check_targets(targets, 3).unwrap_err().to_string()
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
            assert!(error.starts_with("4 values are no whole number"), "{error}");
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

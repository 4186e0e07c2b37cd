//! Predictions are scored as in scikit-learn, including ties, unknown targets and classes with
//! labels of one kind. `scripts/golden_scores.py` makes the golden values.

use densenet_runtime::Targets;
use densenet_runtime::train::{Predictions, ThresholdRule};
use serde_json::Value;

const GOLDEN: &str = include_str!("scores.json");

/// A list of numbers; NaN for `null`.
fn numbers(case: &Value, name: &str) -> Vec<f32> {
    let values = case[name].as_array().expect("a list");
    let number = |value: &Value| value.as_f64().map_or(f32::NAN, |value| value as f32);
    values.iter().map(number).collect()
}

fn same(what: &str, found: Option<f64>, expected: &Value) {
    let expected = expected.as_f64();
    let is_same = match (found, expected) {
        (Some(found), Some(expected)) => (found - expected).abs() < 1e-9,
        (None, None) => true,
        _ => false,
    };
    assert!(is_same, "{what}: {found:?}, not {expected:?}");
}

/// Each case, with its predictions added in two batches.
fn each(test: impl Fn(&Value, &Predictions)) {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 10);
    for case in cases {
        let classes = case["classes"].as_array().unwrap().len();
        let (logits, targets) = (numbers(case, "logits"), numbers(case, "targets"));
        let images = case["images"].as_u64().unwrap() as usize;
        let labels: Vec<u32> = targets.iter().map(|&label| label as u32).collect();
        let targets = match case["kind"].as_str() {
            Some("classes") => Targets::Classes(&labels),
            _ => Targets::Independent(&targets),
        };
        let mut predictions = Predictions::new(classes);
        for part in [0..images / 3, images / 3..images] {
            let rows = &logits[part.start * classes..part.end * classes];
            predictions.add(rows, targets.slice(part, classes)).unwrap();
        }
        assert_eq!(predictions.images(), images);
        test(case, &predictions);
    }
}

#[test]
fn the_scores_of_each_class_and_their_means() {
    each(|case, predictions| {
        let scores = predictions.scores();
        for (class, found) in scores.classes.iter().enumerate() {
            let expected = &case["classes"][class];
            let what = format!("{}, class {class}", case["name"]);
            assert_eq!(
                Some(found.known as u64),
                expected["known"].as_u64(),
                "{what}"
            );
            assert_eq!(
                Some(found.positive as u64),
                expected["positive"].as_u64(),
                "{what}"
            );
            same(
                &format!("accuracy, {what}"),
                found.accuracy,
                &expected["accuracy"],
            );
            same(&format!("AUROC, {what}"), found.auroc, &expected["auroc"]);
            let precision = &expected["average_precision"];
            same(
                &format!("average precision, {what}"),
                found.average_precision,
                precision,
            );
        }
        let (means, expected) = (scores.means, &case["means"]);
        let what = case["name"].to_string();
        same(&what, means.accuracy, &expected["accuracy"]);
        same(&what, means.auroc, &expected["auroc"]);
        same(
            &what,
            means.average_precision,
            &expected["average_precision"],
        );
        same(
            &what,
            means.calibration_error,
            &expected["calibration_error"],
        );
    });
}

/// Fails unless these are the same points.
fn same_points(what: &str, found: &[[f64; 2]], expected: &Value) {
    let expected = expected.as_array().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        same(what, Some(found[0]), &expected[0]);
        same(what, Some(found[1]), &expected[1]);
    }
}

#[test]
fn the_curves_of_each_class() {
    each(|case, predictions| {
        for (class, curve) in predictions.curves().into_iter().enumerate() {
            let expected = &case["classes"][class];
            let what = format!("{}, class {class}", case["name"]);
            assert_eq!(curve.is_none(), expected["roc"].is_null(), "{what}");
            if let Some(curve) = curve {
                same_points(&what, &curve.roc(), &expected["roc"]);
                let precision = &expected["precision_recall"];
                same_points(&what, &curve.precision_recall(), precision);
            }
        }
    });
}

#[test]
fn how_often_predictions_are_right_by_their_confidence() {
    each(|case, predictions| {
        let bins = predictions.calibration();
        assert_eq!((bins[0].from, bins[14].to), (0.0, 1.0));
        let filled = bins.iter().filter(|bin| bin.count > 0);
        let points = filled.map(|bin| [bin.confidence, bin.right as f64 / bin.count as f64]);
        let points: Vec<_> = points.collect();
        same_points(&case["name"].to_string(), &points, &case["calibration"]);
    });
}

#[test]
fn the_thresholds_of_each_class() {
    each(|case, predictions| {
        let rules = [
            ("youden", ThresholdRule::Youden),
            ("sensitive", ThresholdRule::Sensitivity(0.8)),
        ];
        for (name, rule) in rules {
            for (class, found) in predictions.thresholds(rule).into_iter().enumerate() {
                let expected = case["classes"][class][name].as_f64();
                let what = format!("{name} of {}, class {class}", case["name"]);
                assert_eq!(found, expected.map(|threshold| threshold as f32), "{what}");
            }
        }
    });
}

#[test]
fn the_confusion_of_classes_and_their_errors() {
    each(|case, predictions| {
        let expected = case.get("confusion").map(|rows| {
            let rows = rows.as_array().unwrap().iter();
            let row = |row: &Value| -> Vec<usize> {
                let counts = row.as_array().unwrap().iter();
                counts
                    .map(|count| count.as_u64().unwrap() as usize)
                    .collect()
            };
            rows.map(row).collect::<Vec<_>>()
        });
        assert_eq!(predictions.confusion(), expected, "{}", case["name"]);
        let errors = case.get("top_k_error").and_then(Value::as_object);
        for (k, expected) in errors.into_iter().flatten() {
            let found = predictions.top_k_error(k.parse().unwrap());
            same(
                &format!("top-{k} error of {}", case["name"]),
                found,
                expected,
            );
        }
        if case["kind"] == "independent" {
            assert_eq!(predictions.top_k_error(1), None);
        }
    });
}

#[test]
fn probabilities_are_judged_by_the_most_probable_class() {
    let logits = [2.0, 1.0, 0.0, 0.0, 3.0, 1.0];
    let mut soft = Predictions::new(3);
    let rows = [0.7, 0.2, 0.1, 0.2, 0.2, 0.6];
    soft.add(&logits, Targets::Probabilities(&rows)).unwrap();
    let mut hard = Predictions::new(3);
    hard.add(&logits, Targets::Classes(&[0, 2])).unwrap();
    assert_eq!(soft.scores(), hard.scores());
    assert_eq!(soft.top_k_error(1), Some(0.5));
    assert_eq!(soft.top_k_error(2), Some(0.0));
}

#[test]
fn equal_logits_count_as_wrong() {
    let mut predictions = Predictions::new(3);
    let logits = [1.0, 1.0, 0.0];
    predictions.add(&logits, Targets::Classes(&[0])).unwrap();
    assert_eq!(predictions.top_k_error(1), Some(1.0));
    assert_eq!(predictions.top_k_error(2), Some(0.0));
}

#[test]
fn what_does_not_fit_is_refused_with_a_reason() {
    let mut predictions = Predictions::new(2);
    predictions
        .add(&[0.5, 1.0], Targets::Classes(&[1]))
        .unwrap();
    let before = predictions.clone();
    let refused = [
        (
            &[0.5, 1.0][..],
            Targets::Independent(&[1.0, 0.0]),
            "different kinds",
        ),
        (
            &[0.5, 1.0, 2.0],
            Targets::Classes(&[1]),
            "3 logits are not those of 1 images",
        ),
        (
            &[0.5, 1.0],
            Targets::Classes(&[2]),
            "label 2 is not one of 2 classes",
        ),
    ];
    for (logits, targets, words) in refused {
        let error = predictions.add(logits, targets).unwrap_err();
        assert!(error.contains(words), "{error}");
        assert_eq!(predictions, before);
    }
}

#[test]
fn without_images_there_are_no_scores() {
    let scores = Predictions::new(2).scores();
    assert_eq!(scores.means, Default::default());
    assert!(scores.classes.iter().all(|class| class.known == 0));
    assert_eq!(Predictions::new(2).top_k_error(1), None);
    assert_eq!(
        Predictions::new(2).thresholds(ThresholdRule::Youden),
        [None; 2]
    );
}

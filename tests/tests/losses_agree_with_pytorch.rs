//! Each loss has PyTorch's value and gradient: cross-entropy towards classes and probabilities, with
//! weights and label smoothing, and binary cross-entropy towards independent targets, some of them
//! unknown, with positive weights. `scripts/reference/losses.py` makes the golden values.

use densenet_cpu::loss::Loss;
use densenet_runtime::{LossWeights, Targets};
use serde_json::Value;

const GOLDEN: &str = include_str!("../golden/losses.json");

/// A list of numbers; NaN for `null`.
fn numbers(case: &Value, name: &str) -> Vec<f32> {
    let values = case[name].as_array().expect("a list");
    let number = |value: &Value| value.as_f64().map_or(f32::NAN, |value| value as f32);
    values.iter().map(number).collect()
}

/// Runs the cases of a kind, and returns how many there are.
fn agree(kind: &str) -> usize {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    let own: Vec<_> = cases.iter().filter(|case| case["kind"] == kind).collect();
    for case in &own {
        let name = &case["name"];
        let (logits, targets) = (numbers(case, "logits"), numbers(case, "targets"));
        let images = case["images"].as_u64().unwrap() as usize;
        let classes = logits.len() / images;
        let labels: Vec<u32> = targets.iter().map(|&label| label as u32).collect();
        let weights = LossWeights {
            classes: numbers(case, "class_weights"),
            positive: numbers(case, "positive_weights"),
        };
        let loss = Loss {
            targets: match kind {
                "classes" => Targets::Classes(&labels),
                "probabilities" => Targets::Probabilities(&targets),
                _ => Targets::Independent(&targets),
            },
            weights: &weights,
            smoothing: case["smoothing"].as_f64().unwrap() as f32,
        };
        let scale = 0.5;
        let mut gradient = vec![f32::NAN; logits.len()];
        let found = loss.of(&logits, classes, Some((&mut gradient, scale)));
        let expected = case["loss"].as_f64().unwrap();
        let error = (found.loss - expected).abs() / expected.max(1.0);
        assert!(error < 1e-9, "{name}: {} is not {expected}", found.loss);
        let slopes = numbers(case, "gradient");
        let largest = slopes
            .iter()
            .fold(0.0f32, |most, slope| most.max(slope.abs()));
        for (found, slope) in gradient.iter().zip(&slopes) {
            let error = (found - scale * slope).abs();
            assert!(
                error <= 1e-6 * largest,
                "{name}: {found} is not {}",
                scale * slope
            );
        }
    }
    own.len()
}

#[test]
fn cross_entropy_towards_classes() {
    assert!(agree("classes") >= 16);
}

#[test]
fn cross_entropy_towards_probabilities() {
    assert!(agree("probabilities") >= 16);
}

#[test]
fn binary_cross_entropy() {
    assert!(agree("independent") >= 24);
}

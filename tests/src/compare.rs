//! Differences between numbers and their expected values.

use densenet_runtime::plan::Plan;
use densenet_runtime::weights::State;

/// How far an f32 computation of ours may be from PyTorch's in f64. PyTorch's own f32 run is up
/// to 8e-6 away on the golden files.
pub const TOLERANCE: f64 = 1e-4;

/// Tensors whose largest value is below this are compared as if it were this: in f32 they are
/// mostly rounding errors.
const FLOOR: f64 = 1e-3;

/// The largest difference, relative to the largest value expected: `max |a - b| / max |b|`.
/// Infinite where the lengths differ or a number is not finite.
pub fn difference(found: &[f32], expected: &[f32]) -> f64 {
    let finite = found.iter().chain(expected).all(|value| value.is_finite());
    if !finite || found.len() != expected.len() {
        return f64::INFINITY;
    }
    let largest = expected.iter().map(|&b| f64::from(b).abs());
    let differences = found
        .iter()
        .zip(expected)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
    differences.fold(0.0, f64::max) / largest.fold(FLOOR, f64::max)
}

/// The size of the difference of two vectors, relative to the size of the second:
/// `|a - b| / |b|`, Euclidean. Infinite where the lengths differ.
pub fn distance(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let square = |value: f32| f64::from(value).powi(2);
    let off: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    let size: f64 = expected.iter().map(|&b| square(b)).sum();
    (off / size).sqrt()
}

/// Differences of many tensors, asserted together so that a failure shows them all.
#[derive(Debug)]
pub struct Comparison {
    tolerance: f64,
    /// The difference, the tolerance, and the tensor.
    differences: Vec<(f64, f64, String)>,
}

impl Comparison {
    /// Nothing compared yet; each difference may be up to `tolerance`.
    pub fn within(tolerance: f64) -> Self {
        Self {
            tolerance,
            differences: Vec::new(),
        }
    }

    /// Compares one tensor.
    pub fn add(&mut self, name: impl Into<String>, found: &[f32], expected: &[f32]) {
        let found = difference(found, expected);
        self.differences.push((found, self.tolerance, name.into()));
    }

    /// Compares each tensor of an arena of trainable parameters, or of their gradients.
    pub fn add_parameters(&mut self, what: &str, plan: &Plan, found: &[f32], expected: &[f32]) {
        self.add_arena(what, plan, true, found, expected);
    }

    /// Compares gradients with those of two computations that may be as far apart as found and
    /// expected are: a tensor may differ by the tolerance, or by four times what `other` does.
    pub fn add_gradients_beside(
        &mut self,
        what: &str,
        plan: &Plan,
        [found, expected, other]: [&[f32]; 3],
    ) {
        for parameter in plan.parameters() {
            if parameter.role.is_trainable() {
                let of = |arena: &'_ [f32]| arena[parameter.range()].to_vec();
                let (found, expected, other) = (of(found), of(expected), of(other));
                let allowed = self.tolerance.max(4.0 * difference(&other, &expected));
                let found = difference(&found, &expected);
                let name = format!("{what} {}", parameter.field);
                self.differences.push((found, allowed, name));
            }
        }
    }

    /// Compares each tensor of an arena of running statistics.
    pub fn add_running(&mut self, what: &str, plan: &Plan, found: &[f32], expected: &[f32]) {
        self.add_arena(what, plan, false, found, expected);
    }

    /// Compares both arenas of a state.
    pub fn add_state(&mut self, what: &str, plan: &Plan, found: &State, expected: &State) {
        self.add_parameters(what, plan, &found.parameters, &expected.parameters);
        self.add_running(what, plan, &found.running, &expected.running);
    }

    fn add_arena(
        &mut self,
        what: &str,
        plan: &Plan,
        trainable: bool,
        found: &[f32],
        expected: &[f32],
    ) {
        assert_eq!(found.len(), expected.len(), "elements of {what}");
        for parameter in plan.parameters() {
            if parameter.role.is_trainable() == trainable {
                let range = parameter.range();
                let name = format!("{what} {}", parameter.field);
                self.add(name, &found[range.clone()], &expected[range]);
            }
        }
    }

    /// The largest difference so far.
    pub fn worst(&self) -> f64 {
        let differences = self.differences.iter().map(|(difference, ..)| *difference);
        differences.fold(0.0, f64::max)
    }

    /// Fails if something was compared with more than the tolerance, or nothing was compared.
    ///
    /// # Panics
    /// Then, naming the worst tensors of `network`.
    pub fn assert(mut self, network: &str) {
        assert!(!self.differences.is_empty(), "{network}: nothing compared");
        self.differences.sort_by(|a, b| b.0.total_cmp(&a.0));
        let beyond = |&&(difference, allowed, _): &&(f64, f64, String)| difference > allowed;
        let failed = self.differences.iter().filter(beyond).count();
        let worst: String = self
            .differences
            .iter()
            .take(10)
            .map(|(difference, _, name)| format!("\n  {difference:.1e}  {name}"))
            .collect();
        assert!(
            failed == 0,
            "{network}: {failed} of {} tensors differ by more than {:.0e}; the worst are:{worst}",
            self.differences.len(),
            self.tolerance,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_and_never_hide_what_is_not_a_number() {
        assert_eq!(difference(&[1.0, 4.0], &[1.0, 2.0]), 1.0);
        assert_eq!(difference(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(difference(&[1.0], &[1.0, 2.0]), f64::INFINITY);
        assert!(difference(&[1e-9], &[2e-9]) < 1e-5);
    }
}

//! Presets for programs that know their network only at run time.

use densenet_runtime::plan::{Plan, Recompute};

/// Refuses a batch with more pixels than kernels can count.
///
/// # Errors
/// When it has, or is empty.
pub fn check_batch(plan: &Plan, model: &str, batch: usize) -> Result<(), String> {
    let most = plan.countable_batch();
    if (1..=most).contains(&batch) {
        return Ok(());
    }
    Err(format!(
        "--batch {batch}: a step of {model} has 1 to {most} images, whose pixels kernels can count"
    ))
}

/// The meaning of `--recompute`.
pub fn recompute(bottlenecks: bool) -> Recompute {
    match bottlenecks {
        true => Recompute::Bottlenecks,
        false => Recompute::Nothing,
    }
}

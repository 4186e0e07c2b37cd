//! Presets as programs take them that know their network at run time alone.

use densenet_runtime::plan::{Plan, Recompute};

/// Refuses a batch whose pixels kernels cannot count.
pub fn check_batch(plan: &Plan, model: &str, batch: usize) -> Result<(), String> {
    let most = plan.countable_batch();
    if (1..=most).contains(&batch) {
        return Ok(());
    }
    Err(format!(
        "--batch {batch}: a step of {model} has 1 to {most} images, whose pixels kernels can count"
    ))
}

/// What `--recompute` asks for.
pub fn recompute(bottlenecks: bool) -> Recompute {
    match bottlenecks {
        true => Recompute::Bottlenecks,
        false => Recompute::Nothing,
    }
}

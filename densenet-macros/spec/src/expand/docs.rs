//! The documentation of a network: its architecture and figures.

use densenet_plan::Recompute;

use crate::bytes;
use crate::check::CheckedNetwork;

/// Batch sizes whose memory is shown.
const BATCHES: [usize; 4] = [1, 32, 64, 256];

/// The lines of a network's documentation, below the user's own.
pub fn network(network: &CheckedNetwork) -> Vec<String> {
    let plan = &network.plan;
    let stem = plan.stem();
    let mut lines = vec![
        String::new(),
        format!(
            "A DenseNet of {} layers, from {}x{}x{} images to {} classes.",
            plan.depth(),
            stem.channels,
            stem.height,
            stem.width,
            plan.classes()
        ),
        String::new(),
    ];
    lines.extend(plan.to_string().lines().map(str::to_owned));
    lines.extend([
        String::new(),
        format!("* parameters: {}", grouped(plan.parameter_count() as u64)),
        format!(
            "* multiply-adds for one image: {}",
            grouped(plan.multiply_adds())
        ),
        format!("* dropout: {}", plan.dropout()),
    ]);
    if !network.classes.is_empty() {
        lines.push(format!("* classes: `{}`", network.classes.join("`, `")));
    }
    lines.extend([
        String::new(),
        "Memory of a training step in f32:".to_owned(),
        String::new(),
        "| batch |  all kept | bottlenecks recomputed |".to_owned(),
        "|------:|----------:|-----------------------:|".to_owned(),
    ]);
    let kept = plan.training_footprint(Recompute::Nothing);
    let recomputed = plan.training_footprint(Recompute::Bottlenecks);
    lines.extend(BATCHES.map(|batch| {
        let [kept, recomputed] = [kept, recomputed].map(|f| bytes::in_words(f.bytes(batch)));
        format!("| {batch:>5} | {kept:>9} | {recomputed:>22} |")
    }));
    // As in `/// line`.
    lines.iter().map(|line| format!(" {line}")).collect()
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

//! Whether the network is right as often as it says.

use super::Report;
use super::html::{four, number};
use super::plot::Plot;

/// Confidence against the share that is right; bars say how many answers there are.
pub fn calibration(report: &Report<'_>) -> String {
    let bins = report.answers.calibration();
    let most = bins.iter().map(|bin| bin.count).max().unwrap_or(0).max(1);
    let mut plot = Plot::new(
        "Confidence against the share of the answers that is right",
        "confidence",
        "share that is right",
    );
    for bin in &bins {
        let words = format!(
            "{} answers from {:.3} to {:.3}",
            bin.count, bin.from, bin.to
        );
        let height = bin.count as f64 / most as f64;
        plot.bar(bin.from, bin.to, height, &words);
    }
    plot.diagonal();
    let points: Vec<_> = bins
        .iter()
        .filter(|bin| bin.count > 0)
        .map(|bin| [bin.confidence, bin.right as f64 / bin.count as f64])
        .collect();
    plot.line("c0", "share that is right", &points, false);
    for (point, bin) in points.iter().zip(bins.iter().filter(|bin| bin.count > 0)) {
        let words = format!(
            "{} answers: confidence {:.4}, {:.4} right",
            bin.count, point[0], point[1]
        );
        plot.point(*point, &words);
    }
    let error = number(report.measures, &["calibration_error"], four);
    format!(
        "<figure><h3>Calibration</h3>\n{}<figcaption>Expected calibration error {error}, over {} \
         bins. Bars: how many answers a bin has, of at most {most}.</figcaption></figure>\n",
        plot.finish(),
        bins.len(),
    )
}

//! How good the network is, in a few numbers; the network and its data.

use densenet_models::shell::thousands;
use densenet_runtime::data::LabelKind;

use super::Report;
use super::html::{self, escape, four, number, percent, whole};
use crate::network::words;

pub fn section(report: &Report<'_>) -> String {
    html::section("overview", "Overview", &(cards(report) + &about(report)))
}

/// A number with what it is.
fn card(what: &str, number: &str) -> String {
    format!("<div class=\"card\"><dt>{what}</dt><dd>{number}</dd></div>\n")
}

fn cards(report: &Report<'_>) -> String {
    let of = |path: &[&str], shown| number(report.measures, path, shown);
    let mut cards = vec![card("pictures", &of(&["pictures"], whole))];
    if report.measures["unread"] != 0 {
        cards.push(card("could not be read", &of(&["unread"], whole)));
    }
    if report.saved.kind == LabelKind::Exclusive {
        cards.push(card("top-1 error", &of(&["top1_error"], percent)));
        if !report.measures["top5_error"].is_null() {
            cards.push(card("top-5 error", &of(&["top5_error"], percent)));
        }
    }
    cards.extend([
        card("loss", &of(&["loss"], four)),
        card("mean AUROC", &of(&["auroc", "mean"], four)),
        card(
            "mean average precision",
            &of(&["average_precision", "mean"], four),
        ),
        card("calibration error", &of(&["calibration_error"], four)),
    ]);
    format!("<dl class=\"cards\">\n{}</dl>\n", cards.concat())
}

fn about(report: &Report<'_>) -> String {
    let plan = &report.saved.plan;
    let stem = plan.stem();
    let file = report.saved.file.path();
    let file = file.file_name().unwrap_or(file.as_os_str());
    let kind = match report.saved.kind {
        LabelKind::Exclusive => "each picture has one",
        LabelKind::Independent => "a picture may have several, or none",
    };
    let mut rows = vec![("weights", escape(&file.to_string_lossy()))];
    if let Some(words) = words(plan) {
        rows.push(("network", format!("<code>{}</code>", escape(&words))));
    }
    rows.extend([
        (
            "size",
            format!(
                "{} layers, {} parameters, {:.3} billion multiply-adds a picture",
                plan.depth(),
                thousands(plan.parameter_count()),
                plan.multiply_adds() as f64 / 1e9
            ),
        ),
        (
            "pictures",
            format!(
                "shown as {}\u{d7}{} pixels in {}, normalised with {}",
                stem.height,
                stem.width,
                if stem.channels == 3 { "colour" } else { "grey" },
                escape(&report.set.normalization().to_string())
            ),
        ),
        ("classes", format!("{}; {kind}", plan.classes())),
    ]);
    let rows = rows
        .iter()
        .map(|(what, value)| format!("<dt>{what}</dt><dd>{value}</dd>\n"));
    format!("<dl class=\"about\">\n{}</dl>\n", rows.collect::<String>())
}

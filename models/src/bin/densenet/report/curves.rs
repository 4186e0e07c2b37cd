//! ROC and precision-recall curves, and calibration.

use super::html::{self, escape, four, number};
use super::plot::Plot;
use super::{Report, charts};

/// Lines with a colour of their own, and all lines.
const COLOURED: usize = 8;
const MOST: usize = 60;

pub fn section(report: &Report<'_>) -> String {
    let body = format!(
        "<div class=\"plots\">\n{}{}</div>\n",
        lines(report),
        charts::calibration(report)
    );
    html::section("curves", "Curves", &body)
}

/// Both plots and their legend. The classes with the lowest AUROC have colours.
fn lines(report: &Report<'_>) -> String {
    let scores = report.answers.scores();
    let curves = report.answers.curves();
    let mut order: Vec<usize> = (0..curves.len())
        .filter(|&class| curves[class].is_some())
        .collect();
    let auroc = |class: usize| scores.classes[class].auroc.unwrap_or(1.0);
    order.sort_by(|&one, &other| auroc(one).total_cmp(&auroc(other)));
    let left_out = order.len().saturating_sub(MOST);
    order.truncate(MOST);
    let mut roc = Plot::new(
        "Receiver operating characteristic of each class",
        "false positive rate",
        "true positive rate",
    );
    roc.diagonal();
    let mut precision = Plot::new("Precision and recall of each class", "recall", "precision");
    // Those with colours are drawn last, over the others.
    for (place, &class) in order.iter().enumerate().rev() {
        let kind = match place {
            place if place < COLOURED => format!("c{place}"),
            _ => "other".to_string(),
        };
        if let Some(curve) = &curves[class] {
            let name = &report.names[class];
            roc.line(&kind, name, &curve.roc(), false);
            precision.line(&kind, name, &curve.precision_recall(), true);
        }
    }
    let keys = order
        .iter()
        .take(COLOURED)
        .enumerate()
        .map(|(place, &class)| {
            let name = &report.names[class];
            let of = |what| number(report.measures, &[what, "by_class", name], four);
            format!(
                "<li><span class=\"key c{place}\"></span>{} <small>AUROC {}, AP {}</small></li>\n",
                escape(name),
                of("auroc"),
                of("average_precision")
            )
        });
    let keys: String = keys.collect();
    let others = match order.len().saturating_sub(COLOURED) {
        0 => String::new(),
        others => {
            let left_out = match left_out {
                0 => String::new(),
                left_out => format!("; {left_out} with a higher AUROC are left out"),
            };
            format!("<li><span class=\"key other\"></span>{others} more classes{left_out}</li>\n")
        }
    };
    format!(
        "<figure><h3>ROC</h3>\n{}</figure>\n<figure><h3>Precision and recall</h3>\n{}</figure>\n\
         <figure class=\"legend\"><h3>Classes, the lowest AUROC first</h3>\n<ul>\n{keys}{others}</ul></figure>\n",
        roc.finish(),
        precision.finish(),
    )
}

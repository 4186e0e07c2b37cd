//! The measures of each class, and which classes are taken for which.

use densenet_runtime::Targets;
use densenet_runtime::data::LabelKind;
use serde_json::Value;

use super::Report;
use super::html::{self, escape, four, number, percent, whole};

/// A matrix of more classes is shown as a list of its largest numbers.
const WIDEST: usize = 30;
/// The numbers that are listed.
const LISTED: usize = 40;

pub fn section(report: &Report<'_>) -> String {
    let confused = match report.saved.kind {
        LabelKind::Exclusive => confusion(report),
        LabelKind::Independent => decisions(report),
    };
    html::section("classes", "Classes", &(measures(report) + &confused))
}

/// A table that scrolls on its own where it is wider than the page.
fn table(caption: &str, head: &[&str], rows: &str) -> String {
    let head = head
        .iter()
        .map(|name| format!("<th scope=\"col\">{name}</th>"));
    format!(
        "<div class=\"scroll\" tabindex=\"0\"><table>\n<caption>{caption}</caption>\n\
         <thead><tr>{}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n",
        head.collect::<String>()
    )
}

fn cells(cells: &[String]) -> String {
    cells
        .iter()
        .map(|cell| format!("<td>{cell}</td>"))
        .collect()
}

fn measures(report: &Report<'_>) -> String {
    let of =
        |what: &str, name: &str, shown| number(report.measures, &[what, "by_class", name], shown);
    let row = |name: &String| {
        format!(
            "<tr><th scope=\"row\">{}</th>{}</tr>\n",
            escape(name),
            cells(&[
                number(report.measures, &["known", name], whole),
                number(report.measures, &["positive", name], whole),
                of("accuracy", name, percent),
                of("auroc", name, four),
                of("average_precision", name, four),
            ])
        )
    };
    let rows: String = report.names.iter().map(row).collect();
    let mean = |what: &str, shown| number(report.measures, &[what, "mean"], shown);
    let means = format!(
        "<tr class=\"mean\"><th scope=\"row\">mean</th>{}</tr>\n",
        cells(&[
            String::new(),
            String::new(),
            mean("accuracy", percent),
            mean("auroc", four),
            mean("average_precision", four),
        ])
    );
    let caption = match report.saved.kind {
        LabelKind::Exclusive => {
            "Accuracy is the share of the pictures of a class that are taken for it."
        }
        LabelKind::Independent => {
            "Accuracy is the share of the known answers that are right at a probability of 0.5."
        }
    };
    let head = ["class", "known", "yes", "accuracy", "AUROC", "AP"];
    table(caption, &head, &(rows + &means))
}

fn confusion(report: &Report<'_>) -> String {
    let counts = report.measures["confusion"].as_array();
    let counts = counts.map_or(&[][..], Vec::as_slice);
    let count = |row: usize, column: usize| counts[row][column].as_u64().unwrap_or(0);
    let names: Vec<_> = report.names.iter().map(|name| escape(name)).collect();
    let shown = |row: usize, column: usize| {
        let path = format!("/confusion/{row}/{column}");
        let count = count(row, column);
        format!("<data data-json=\"{path}\" value=\"{count}\">{count}</data>")
    };
    if counts.len() > WIDEST {
        let pairs =
            (0..counts.len()).flat_map(|row| (0..counts.len()).map(move |column| (row, column)));
        let mut wrong: Vec<_> = pairs
            .filter(|(row, column)| row != column && count(*row, *column) > 0)
            .collect();
        wrong.sort_by_key(|&(row, column)| std::cmp::Reverse(count(row, column)));
        let rows = wrong.iter().take(LISTED).map(|&(row, column)| {
            format!(
                "<tr><th scope=\"row\">{}</th>{}</tr>\n",
                names[row],
                cells(&[names[column].clone(), shown(row, column)])
            )
        });
        let caption = format!("The most frequent of {} confusions.", wrong.len());
        let rows: String = rows.collect();
        return format!(
            "<h3>Confusions</h3>\n{}",
            table(&caption, &["is", "taken for", "pictures"], &rows)
        );
    }
    let total = |row: &Value| -> u64 {
        let row = row.as_array().into_iter().flatten();
        row.filter_map(Value::as_u64).sum()
    };
    let mut rows = String::new();
    for (row, values) in counts.iter().enumerate() {
        let all = total(values).max(1) as f64;
        let cells = (0..counts.len()).map(|column| {
            let share = (100.0 * count(row, column) as f64 / all).round();
            let kind = if row == column { "right" } else { "wrong" };
            let text = match count(row, column) {
                0 => "<span class=\"none\">0</span>".to_string(),
                _ => shown(row, column),
            };
            format!("<td class=\"{kind}\" style=\"--share:{share}%\">{text}</td>")
        });
        let cells: String = cells.collect();
        rows += &format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", names[row]);
    }
    let mut head = vec!["<span class=\"axes\">is \\ taken for</span>".to_string()];
    head.extend(
        names
            .iter()
            .map(|name| format!("<span class=\"turned\" title=\"{name}\">{name}</span>")),
    );
    let head: Vec<_> = head.iter().map(String::as_str).collect();
    let caption = "Pictures by their class (rows) and the class that they are taken for (columns). \
                   A cell's colour is its share of the row.";
    let table = table(caption, &head, &rows);
    format!("<h3>Confusion matrix</h3>\n<div class=\"matrix\">{table}</div>\n")
}

/// Of classes that are independent: the decisions at the thresholds.
fn decisions(report: &Report<'_>) -> String {
    let Targets::Independent(targets) = report.answers.targets() else {
        return String::new();
    };
    let probabilities = report.answers.probabilities();
    let classes = report.names.len();
    let thresholds = report.thresholds;
    let rows = report.names.iter().enumerate().map(|(class, name)| {
        let mut counts = [0_usize; 4];
        let column = probabilities
            .iter()
            .zip(targets)
            .skip(class)
            .step_by(classes);
        for (&probability, &target) in column.filter(|(_, target)| !target.is_nan()) {
            let says = probability as f32 >= thresholds[class];
            counts[usize::from(!says) + 2 * usize::from((target >= 0.5) != says)] += 1;
        }
        let [found, free, wrong, missed] = counts;
        let mut row = vec![format!("{:.4}", thresholds[class])];
        row.extend([found, wrong, missed, free].map(|count| count.to_string()));
        format!(
            "<tr><th scope=\"row\">{}</th>{}</tr>\n",
            escape(name),
            cells(&row)
        )
    });
    let rows: String = rows.collect();
    let head = [
        "class",
        "threshold",
        "rightly yes",
        "wrongly yes",
        "wrongly no",
        "rightly no",
    ];
    let caption = "What is known, decided at the threshold of each class: the one that is chosen here \
                   (--threshold), or that of the weights, or 0.5.";
    format!("<h3>Decisions</h3>\n{}", table(caption, &head, &rows))
}

//! The worst mistakes and the least certain answers, each picture beside its class maps.

use std::error::Error;

use densenet_runtime::data::Depth;
use densenet_runtime::figures::ClassMaps;
use densenet_runtime::{Frozen, MapsOf, Outputs, Targets};

use super::Report;
use super::html::{self, escape};
use super::picture::RgbPicture;
use crate::seen::rgb;

/// How many pictures each gallery shows.
const SHOWN: usize = 12;

/// A picture of a gallery.
#[derive(Clone, Debug, PartialEq)]
struct Item {
    /// Which of the answers.
    answer: usize,
    /// The classes whose maps are shown.
    classes: Vec<usize>,
    /// What is said of it.
    words: String,
    /// By what galleries are sorted: the first are shown.
    rank: f64,
}

pub fn section(report: &Report<'_>, probabilities: &[f64]) -> Result<String, Box<dyn Error>> {
    let [mistakes, uncertain] = match report.answers.targets() {
        Targets::Independent(targets) => independent(report, probabilities, targets),
        Targets::Classes(labels) => exclusive(report, probabilities, labels),
        Targets::Probabilities(_) => return Ok(String::new()),
    };
    let outputs = Outputs {
        class_maps: 2,
        ..Outputs::default()
    };
    let views = report.set.views();
    let mut network = report.options.frozen(report.saved, views, outputs)?;
    let note = "Beside each picture, as the network sees it: class maps, which show what each place adds to \
                the logit of a class, from the lowest value (violet) to the highest (yellow) of the maps \
                of the picture.";
    let mut body = format!(
        "<p>{note}</p>\n<p class=\"scale\" aria-hidden=\"true\"><span>low</span><i></i><span>high</span></p>\n"
    );
    for (heading, items) in [
        ("Worst mistakes", mistakes),
        ("Least certain answers", uncertain),
    ] {
        body += &format!("<h3>{heading}</h3>\n");
        if items.is_empty() {
            body += "<p>There are none.</p>\n";
            continue;
        }
        body += "<div class=\"gallery\">\n";
        for item in items {
            body += &figure(report, &mut network, &item)?;
        }
        body += "</div>\n";
    }
    Ok(html::section("pictures", "Pictures", &body))
}

/// The first of the items, in the order of their ranks.
fn first(mut items: Vec<Item>) -> Vec<Item> {
    items.retain(|item| !item.rank.is_nan());
    items.sort_by(|one, other| one.rank.total_cmp(&other.rank));
    items.truncate(SHOWN);
    items
}

fn percent(probability: f64) -> String {
    format!("{:.1}%", 100.0 * probability)
}

/// Of pictures that have one class each: those whose own class is least probable, and those whose two
/// likeliest classes are closest.
fn exclusive(report: &Report<'_>, probabilities: &[f64], labels: &[u32]) -> [Vec<Item>; 2] {
    let (mut mistakes, mut uncertain) = (Vec::new(), Vec::new());
    let rows = probabilities.chunks_exact(report.names.len());
    let logits = report.answers.logits().chunks_exact(report.names.len());
    for (answer, ((row, logits), &label)) in rows.zip(logits).zip(labels).enumerate() {
        let mut best = [0; 2];
        MapsOf::Top(2).choose(logits, &mut best[..row.len().min(2)]);
        let (said, own) = (best[0], label as usize);
        let name = |class: usize| escape(&report.names[class]);
        if said != own {
            mistakes.push(Item {
                answer,
                classes: vec![said, own],
                words: format!(
                    "is <b>{}</b> ({}), taken for <b>{}</b> ({})",
                    name(own),
                    percent(row[own]),
                    name(said),
                    percent(row[said])
                ),
                rank: row[own],
            });
        }
        if row.len() > 1 {
            uncertain.push(Item {
                answer,
                classes: best.to_vec(),
                words: format!(
                    "<b>{}</b> ({}) or <b>{}</b> ({}); is {}",
                    name(best[0]),
                    percent(row[best[0]]),
                    name(best[1]),
                    percent(row[best[1]]),
                    name(own)
                ),
                rank: row[best[0]] - row[best[1]],
            });
        }
    }
    [first(mistakes), first(uncertain)]
}

/// Of classes that are independent: the class of each picture that is decided wrongly with the
/// least probability for what is right, and the one whose probability is nearest to its threshold.
fn independent(report: &Report<'_>, probabilities: &[f64], targets: &[f32]) -> [Vec<Item>; 2] {
    let (mut mistakes, mut uncertain) = (Vec::new(), Vec::new());
    let classes = report.names.len();
    let thresholds = report.thresholds;
    let rows = probabilities
        .chunks_exact(classes)
        .zip(targets.chunks_exact(classes));
    for (answer, (row, targets)) in rows.enumerate() {
        let items = (0..classes).map(|class| {
            let (probability, target) = (row[class], targets[class]);
            let threshold = f64::from(thresholds[class]);
            let says = probability as f32 >= thresholds[class];
            let truth = match target {
                target if target.is_nan() => "unknown",
                target if target >= 0.5 => "yes",
                _ => "no",
            };
            let is_wrong = !target.is_nan() && says != (target >= 0.5);
            let right = if target >= 0.5 {
                probability
            } else {
                1.0 - probability
            };
            let words = format!(
                "<b>{}</b>: {} says {}, is {truth} (threshold {threshold:.2})",
                escape(&report.names[class]),
                percent(probability),
                if says { "yes" } else { "no" },
            );
            let item = |rank| Item {
                answer,
                classes: vec![class],
                words: words.clone(),
                rank,
            };
            (
                is_wrong.then(|| item(right)),
                item((probability - threshold).abs()),
            )
        });
        let (wrong, close): (Vec<_>, Vec<_>) = items.unzip();
        mistakes.extend(
            first(wrong.into_iter().flatten().collect())
                .into_iter()
                .next(),
        );
        uncertain.extend(first(close).into_iter().next());
    }
    [first(mistakes), first(uncertain)]
}

/// A picture beside its maps.
fn figure(
    report: &Report<'_>,
    network: &mut Frozen,
    item: &Item,
) -> Result<String, Box<dyn Error>> {
    let (set, plan) = (report.set, &report.saved.plan);
    let (stem, head) = (plan.stem(), plan.head());
    let index = report.indices[item.answer];
    let len = stem.channels * stem.height * stem.width;
    let views = set.views();
    let (mut bytes, mut values): (Vec<u8>, Vec<f32>);
    let pixels = match set.depth() {
        Depth::Bytes => {
            bytes = vec![0; views * len];
            set.load(index, None, &mut bytes)?;
            set.normalization().pixels(&bytes)
        }
        Depth::Floats => {
            values = vec![0.0; views * len];
            set.load_floats(index, None, &mut values)?;
            set.normalization().floats(&values)
        }
    };
    let said = network.infer_with(pixels, views, MapsOf::Classes(&item.classes))?;
    let picture = RgbPicture {
        bytes: rgb(pixels.slice(0..len), stem.channels),
        size: [stem.height, stem.width],
    };
    let picture = picture.for_page();
    let maps = ClassMaps {
        picture: &picture.bytes,
        size: picture.size,
        map_size: [head.height, head.width],
        maps: said
            .maps_of(0)
            .map(|(class, map)| (report.names[class].clone(), map))
            .collect(),
    };
    let path = set.name(index);
    let mut images = cell(&picture, &path, "picture")?;
    if let Some(range) = maps.range() {
        for (number, (name, _)) in maps.maps.iter().enumerate() {
            if let Some(bytes) = maps.over(number, range) {
                let size = picture.size;
                images += &cell(
                    &RgbPicture { bytes, size },
                    &format!("class map of {name}"),
                    name,
                )?;
            }
        }
        images += &format!(
            "<small class=\"range\">maps from {:+.2} to {:+.2}</small>",
            range[0], range[1]
        );
    }
    Ok(format!(
        "<figure>\n<div class=\"views\">{images}</div>\n<figcaption>{}<br/><code>{}</code></figcaption>\n</figure>\n",
        item.words,
        escape(&path)
    ))
}

/// A picture with its name under it.
fn cell(picture: &RgbPicture, words: &str, name: &str) -> Result<String, Box<dyn Error>> {
    Ok(format!(
        "<div>{}<small>{}</small></div>",
        picture.image(words)?,
        escape(name)
    ))
}

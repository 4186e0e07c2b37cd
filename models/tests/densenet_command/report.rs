//! `densenet evaluate --report`: the page that people open.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use densenet_runtime::weights::State;
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

use crate::{SPEC, TABLE, refusal, said, scores, with_pictures, with_table};

/// Evaluates, and reads the page.
fn report(folder: &Path, weights: &str, source: &[&str]) -> String {
    let asked = ["evaluate", "--weights", weights, "--input", "32"];
    let files = ["--json", "scores.json", "--report", "report"];
    let said = said(folder, &[&asked[..], source, &files].concat());
    assert!(said.ends_with("report       report/index.html\n"), "{said}");
    assert_eq!(fs::read_dir(folder.join("report")).unwrap().count(), 1);
    fs::read_to_string(folder.join("report/index.html")).unwrap()
}

fn parse(page: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(page, options).unwrap()
}

fn all<'a>(page: &'a Document<'a>, tag: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    page.descendants()
        .filter(move |node| node.has_tag_name(tag))
}

/// All numbers of a value, with their places.
fn leaves(value: &Value, path: &str, into: &mut BTreeMap<String, f64>) {
    match value {
        Value::Number(number) => {
            into.insert(path.to_string(), number.as_f64().unwrap());
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                leaves(value, &format!("{path}/{index}"), into);
            }
        }
        Value::Object(values) => {
            for (key, value) in values {
                let key = key.replace('~', "~0").replace('/', "~1");
                leaves(value, &format!("{path}/{key}"), into);
            }
        }
        _ => {}
    }
}

/// Fails unless the page's numbers are all of the JSON's, to the last digit.
fn check_numbers(page: &Document<'_>, scores: &Value) {
    let mut expected = BTreeMap::new();
    leaves(scores, "", &mut expected);
    // Pictures that are not there are not mentioned.
    expected.retain(|path, value| {
        *value != 0.0 || !(path == "/unread" || path.starts_with("/confusion"))
    });
    let found = all(page, "data").map(|data| {
        let path = data.attribute("data-json").unwrap().to_string();
        (path, data.attribute("value").unwrap().parse().unwrap())
    });
    assert_eq!(found.collect::<BTreeMap<String, f64>>(), expected);
}

/// Nothing of the page is elsewhere, and nothing in it runs.
fn check_alone(page: &Document<'_>) {
    for node in page.descendants() {
        assert!(!node.has_tag_name("script"));
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!name.starts_with("on"), "{name}");
            if ["src", "href"].contains(&name) {
                assert!(
                    value.starts_with("data:") || value.starts_with('#'),
                    "{value}"
                );
            }
        }
    }
    let style = all(page, "style").next().unwrap().text().unwrap();
    assert!(!style.contains("url(") && !style.contains("@import"));
}

#[test]
fn the_page_stands_alone_and_has_the_numbers_of_the_json() {
    let folder = with_pictures();
    let folder = folder.path();
    let words = format!("{SPEC}, classes: 10");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    let weights = folder.join("w.safetensors");
    State::initial(&plan, 3).write(&plan, weights).unwrap();
    // A class whose name is not valid HTML, and is a path of JSON.
    for class in fs::read_dir(folder.join("data/val")).unwrap().take(1) {
        let odd = folder.join("data/val/<b>a&~1\"'");
        fs::rename(class.unwrap().path(), odd).unwrap();
    }
    let text = report(folder, "w.safetensors", &["--data", "data"]);
    assert!(text.len() < 1_000_000, "{}", text.len());
    assert!(text.contains("\"/known/&lt;b&gt;a&amp;~01&quot;&#39;\""));
    let page = parse(&text);
    check_numbers(&page, &scores(folder));
    check_alone(&page);
    // Ten classes in either plot and in the matrix.
    let lines = all(&page, "path").filter(|path| {
        path.attribute("class")
            .is_some_and(|class| class.starts_with("line"))
    });
    assert_eq!(lines.count(), 10 + 10 + 1);
    let cells = all(&page, "td").filter(|cell| cell.has_attribute("style"));
    assert_eq!(cells.count(), 100);
    // The page may shorten the names over the matrix; a title has each in full.
    let turned = all(&page, "span").filter(|span| span.attribute("class") == Some("turned"));
    let turned: Vec<_> = turned.collect();
    assert_eq!(turned.len(), 10);
    for name in turned {
        assert_eq!(name.attribute("title"), name.text());
    }
    // Twelve pictures that are least certain, and as many mistakes, with a map of each of two classes.
    let images = all(&page, "img").collect::<Vec<_>>();
    assert_eq!(images.len(), 2 * 12 * 3);
    assert!(images.iter().all(|image| image.has_attribute("alt")));

    let again = [
        "evaluate",
        "--weights",
        "w.safetensors",
        "--input",
        "32",
        "--data",
        "data",
    ];
    let refused = refusal(folder, &[&again[..], &["--report", "report"]].concat());
    assert_eq!(
        refused,
        "error: --report report: the folder is not empty; choose a new one, or empty it\n"
    );
}

#[test]
fn the_page_of_thousands_of_pictures_is_as_small_as_that_of_a_few() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let words = format!("{SPEC}, classes: 10");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    let weights = folder.join("w.safetensors");
    State::initial(&plan, 3).write(&plan, weights).unwrap();
    for class in 0..10_u8 {
        let own = folder.join(format!("data/val/class {class}"));
        fs::create_dir_all(&own).unwrap();
        for number in 0..200_u8 {
            let pixels =
                (0..48).map(|place: u8| (7 * class).wrapping_add(number.wrapping_mul(place)));
            let file = [b"P6 4 4 255\n".to_vec(), pixels.collect()].concat();
            fs::write(own.join(format!("{number:03}.ppm")), file).unwrap();
        }
    }
    let text = report(folder, "w.safetensors", &["--data", "data"]);
    assert!(text.len() < 1_000_000, "{}", text.len());
    check_numbers(&parse(&text), &scores(folder));
}

#[test]
fn of_independent_classes_the_page_has_decisions_and_what_is_known() {
    let folder = with_table();
    let folder = folder.path();
    let run = [
        &TABLE[..],
        &["--steps", "2", "--val", "0.5", "--out", "run"],
    ]
    .concat();
    said(folder, &[&crate::SMALL[..], &run].concat());
    let text = report(folder, "run/checkpoint.safetensors", &TABLE);
    let page = parse(&text);
    check_numbers(&page, &scores(folder));
    check_alone(&page);
    assert!(text.contains("a picture may have several, or none"));
    let caption = |words: &str| {
        all(&page, "caption").any(|node| node.text().is_some_and(|text| text.contains(words)))
    };
    assert!(caption("decided at the threshold of each class"));
    assert!(!caption("taken for"));
    // What is known of the second class: see `with_table`.
    let known = all(&page, "data").find(|data| data.attribute("data-json") == Some("/known/late"));
    assert_eq!(known.unwrap().text(), Some("26"));
}

//! Thresholds: chosen at a run's evaluations, kept in its files, and used for prediction.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use densenet_runtime::train::{Config, ThresholdRule};
use densenet_runtime::weights::{Notes, State, TensorFile};
use serde_json::Value;
use tempfile::TempDir;

use crate::{SMALL, SPEC, judged, numbers, paths, refusal, said, scores, with_table};

/// The table's options, with a third class that no picture has.
const SOURCE: [&str; 6] = [
    "--csv",
    "more.csv",
    "--root",
    "data/train",
    "--labels",
    "odd,late,never",
];
const CHECKPOINT: &str = "run/checkpoint.safetensors";

fn thresholds(folder: &Path) -> Vec<Option<f32>> {
    let file = TensorFile::read(folder.join(CHECKPOINT)).unwrap();
    Notes::of(&file).unwrap().thresholds
}

/// The table of [`SOURCE`], and its pictures.
fn with_more() -> TempDir {
    let folder = with_table();
    let table = fs::read_to_string(folder.path().join("labels.csv")).unwrap();
    let mut lines = table.lines();
    let header = format!("{},never", lines.next().unwrap());
    let rows = lines.map(|line| format!("{line},0"));
    let table: Vec<_> = std::iter::once(header).chain(rows).collect();
    fs::write(folder.path().join("more.csv"), table.join("\n")).unwrap();
    folder
}

/// Trains for some steps with a rule.
fn trained(rule: &str) -> TempDir {
    let folder = with_more();
    let run = [&SMALL[..], &["--steps", "2"]].concat();
    let chosen = ["--val", "0.5", "--threshold", rule, "--out", "run"];
    said(folder.path(), &[&run[..], &SOURCE, &chosen].concat());
    folder
}

/// The probabilities of a class and whether it applies, for the validation pictures with a known label.
fn known(folder: &Path, class: usize) -> Vec<(f64, bool)> {
    let evaluate = [
        "evaluate",
        "--weights",
        CHECKPOINT,
        "--split",
        "run/split.csv",
    ];
    let files = ["--predictions", "judged.csv"];
    said(folder, &[&evaluate[..], &SOURCE, &files].concat());
    judged(folder, "more.csv", class)
}

/// The numbers of true and of false positives at a threshold.
fn found(known: &[(f64, bool)], threshold: f64) -> [usize; 2] {
    [true, false].map(|kind| {
        let own = known.iter().filter(|(_, applies)| *applies == kind);
        own.filter(|(probability, _)| *probability >= threshold)
            .count()
    })
}

/// The highest probability with the highest sum of sensitivity and specificity.
fn youdens(known: &[(f64, bool)]) -> f64 {
    let yes = known.iter().filter(|(_, applies)| *applies).count();
    let no = known.len() - yes;
    let mut best = (i64::MIN, 0.0);
    for threshold in candidates(known) {
        let [right, wrong] = found(known, threshold).map(|count| count as i64);
        let j = right * no as i64 - wrong * yes as i64;
        if j > best.0 {
            best = (j, threshold);
        }
    }
    best.1
}

/// The probabilities from the highest on.
fn candidates(known: &[(f64, bool)]) -> Vec<f64> {
    let mut all: Vec<_> = known.iter().map(|(probability, _)| *probability).collect();
    all.sort_by(|a, b| b.total_cmp(a));
    all
}

#[test]
fn thresholds_are_youdens_of_the_pictures_that_validated() {
    let folder = trained("youden");
    let folder = folder.path();
    let own = thresholds(folder);
    assert_eq!(own.len(), 3);
    assert_eq!(own[2], None);
    for class in [0, 1] {
        let best = youdens(&known(folder, class));
        // Except for the folded form's rounding.
        let own = f64::from(own[class].unwrap());
        assert!((own - best).abs() < 1e-5, "{own} {best}");
    }
}

#[test]
fn thresholds_for_weights_of_others_are_chosen_by_evaluate_and_kept_in_a_copy() {
    let folder = with_more();
    let folder = folder.path();
    let words = format!("{SPEC}, classes: 3");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    let state = State::initial(&plan, 3);
    let theirs = folder.join("theirs.pth");
    state.write(&plan, &theirs).unwrap();
    let before = fs::read(&theirs).unwrap();
    let weights = ["evaluate", "--weights", "theirs.pth", "--input", "32"];
    let shown = ["--crop-pct", "0.5"];
    let files = ["--json", "scores.json", "--predictions", "judged.csv"];
    let chosen = ["--threshold", "youden", "--out", "own.safetensors"];
    let line = [&weights[..], &SOURCE, &shown, &files, &chosen].concat();
    said(folder, &line);

    let own = folder.join("own.safetensors");
    let thresholds = Notes::of(&TensorFile::read(&own).unwrap())
        .unwrap()
        .thresholds;
    assert_eq!(thresholds.len(), 3);
    let json = &scores(folder)["thresholds"];
    for (class, name) in ["odd", "late"].into_iter().enumerate() {
        let expected = youdens(&judged(folder, "more.csv", class)) as f32;
        assert_eq!(thresholds[class], Some(expected));
        assert_eq!(json[name].as_f64().unwrap() as f32, expected);
    }
    // No picture has it.
    assert_eq!((thresholds[2], json["never"].is_null()), (None, true));
    assert_eq!(State::read(&plan, &own).unwrap(), state);

    // Pictures are preprocessed as those that the thresholds were chosen on, and predicted by these.
    let table = fs::read_to_string(folder.join("judged.csv")).unwrap();
    let asked = ["predict", "--weights", "own.safetensors", "--format", "csv"];
    let answers = said(folder, &[&asked[..], &["data/train"]].concat());
    let rows: HashMap<_, _> = paths(&table).zip(numbers(&table, 3)).collect();
    assert_eq!(answers.lines().count(), 1 + rows.len());
    let mut decided = [0; 2];
    for (path, line) in paths(&answers).zip(answers.lines().skip(1)) {
        let row = &rows[path.strip_prefix("data/train/").unwrap()];
        let decision = line.rsplit(',').next().unwrap();
        let of_class = |class: usize| row[class] as f32 >= thresholds[class].unwrap_or(0.5);
        let names = ["odd", "late", "never"].into_iter().enumerate();
        let names = names.filter(|(class, _)| of_class(*class));
        let expected: Vec<_> = names.map(|(_, name)| name).collect();
        assert_eq!(decision, expected.join("|"), "{line}");
        decided[usize::from(of_class(0))] += 1;
    }
    assert!(decided.iter().all(|&count| count > 0), "{decided:?}");

    // Nothing is lost.
    let kept = fs::read(&own).unwrap();
    let refused = refusal(folder, &line);
    assert!(
        refused.contains("--out own.safetensors: the file exists; give it another name"),
        "{refused}"
    );
    assert_eq!(fs::read(&own).unwrap(), kept);
    assert_eq!(fs::read(&theirs).unwrap(), before);
}

#[test]
fn thresholds_find_the_share_that_is_asked_for_and_predictions_are_decided_by_them() {
    let folder = trained("sensitivity=0.75");
    let folder = folder.path();
    let own = thresholds(folder);
    for class in [0, 1] {
        let known = known(folder, class);
        let yes = known.iter().filter(|(_, applies)| *applies).count();
        let enough = candidates(&known)
            .into_iter()
            .find(|&threshold| found(&known, threshold)[0] as f64 >= 0.75 * yes as f64);
        let own = f64::from(own[class].unwrap());
        assert!((own - enough.unwrap()).abs() < 1e-5, "{own} {enough:?}");
    }

    let asked = [
        "predict",
        "--weights",
        CHECKPOINT,
        "--format",
        "jsonl",
        "data/train",
    ];
    let mut decided = [[0; 2]; 3];
    for line in said(folder, &asked).lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        for (class, name) in ["odd", "late", "never"].into_iter().enumerate() {
            let probability = answer["probabilities"][name].as_f64().unwrap();
            let threshold = f64::from(own[class].unwrap_or(0.5));
            let decisions = answer["decisions"].as_array().unwrap();
            let applies = decisions.iter().any(|decision| decision == name);
            decided[class][usize::from(applies)] += 1;
            if (probability - threshold).abs() > 1e-5 {
                assert_eq!(applies, probability > threshold, "{name}: {line}");
            }
        }
    }
    // With 0.5 all predictions would be equal.
    assert!(
        decided[..2].iter().flatten().all(|&count| count > 0),
        "{decided:?}"
    );

    // The rule is the run's, so a resumed run has thresholds, too.
    let resume = ["train", "--resume", CHECKPOINT, "--steps", "3"];
    said(folder, &[&resume[..], &SOURCE].concat());
    let config = Config::of_checkpoint(folder.join(CHECKPOINT)).unwrap();
    assert_eq!(config.threshold, Some(ThresholdRule::Sensitivity(0.75)));
    let resumed = thresholds(folder);
    assert!(
        resumed[0].is_some() && resumed[1].is_some() && resumed != own,
        "{resumed:?}"
    );
    assert_eq!(resumed[2], None);
    // Converted weights still use them.
    said(folder, &["convert", CHECKPOINT, "own.pth"]);
    let asked = ["predict", "--weights", "own.pth", "--format", "jsonl"];
    let answer = said(folder, &[&asked[..], &["data/val"]].concat());
    assert!(
        !answer.contains("\"never\":0.9") && answer.lines().count() == 20,
        "{answer}"
    );
}

#[test]
fn the_report_shows_the_threshold_by_which_it_decides() {
    let folder = trained("youden");
    let folder = folder.path();
    let asked = [
        "evaluate",
        "--weights",
        CHECKPOINT,
        "--threshold",
        "youden",
        "--report",
        "report",
    ];
    said(folder, &[&asked[..], &SOURCE].concat());
    let page = fs::read_to_string(folder.join("report/index.html")).unwrap();
    // No picture has this class, so none is chosen.
    assert!(page.contains("<th scope=\"row\">never</th><td>0.5000</td>"));
}

//! Runs: trained, resumed, evaluated, and used for prediction.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::{
    SMALL, SPEC, TABLE, densenet, judged, last_evaluation, numbers, refusal, said, scores, support,
    train, with_pictures, with_table,
};

#[test]
fn a_run_on_folders_is_trained_resumed_evaluated_and_asked() {
    let folder = with_pictures();
    let folder = folder.path();
    let shown = train(folder, &["--epochs", "2", "--steps", "7", "--out", "run"]);
    assert!(
        shown.contains("data      40 pictures to train on, 20 to validate on, 10 classes"),
        "{shown}"
    );
    assert!(shown.contains("validation after step 7"), "{shown}");
    for file in [
        "checkpoint.safetensors",
        "best.safetensors",
        "metrics.jsonl",
        "curves.png",
    ] {
        assert!(folder.join("run").join(file).is_file(), "{file}");
    }
    // The network and its classes are those of the checkpoint.
    let checkpoint = "run/checkpoint.safetensors";
    let shown = said(folder, &["train", "--data", "data", "--resume", checkpoint]);
    assert!(
        shown.contains("at step 7") && shown.contains("validation after step 10"),
        "{shown}"
    );

    let arguments = ["evaluate", "--weights", checkpoint, "--data", "data"];
    let files = ["--json", "scores.json", "--predictions", "scores.csv"];
    let shown = said(folder, &[&arguments[..], &files].concat());
    assert!(shown.starts_with("pictures     20\nloss  "), "{shown}");
    let scores = scores(folder);
    // The run's own result, except for the folded form's rounding.
    let last = last_evaluation(&folder.join("run"));
    let [own, run] = [&scores["loss"], &last["val_loss"]].map(|loss| loss.as_f64().unwrap());
    assert!((own - run).abs() < 1e-4 * run, "{own} {run}");
    for error in ["top1_error", "top5_error"] {
        assert!(
            scores[error].is_f64() && scores[error] == last[error],
            "{scores}"
        );
    }
    for score in ["auroc", "average_precision"] {
        assert!(scores[score]["mean"].is_f64(), "{scores}");
        assert_eq!(scores[score]["by_class"].as_object().unwrap().len(), 10);
    }
    let table = fs::read_to_string(folder.join("scores.csv")).unwrap();
    let header = table.lines().next().unwrap();
    assert!(
        header.starts_with("path,") && header.split(',').count() == 11,
        "{header}"
    );
    assert_eq!(table.lines().count(), 21);
    for line in table.lines().skip(1) {
        let cells: Vec<_> = line.split(',').collect();
        let sum: f64 = cells[1..]
            .iter()
            .map(|cell| cell.parse::<f64>().unwrap())
            .sum();
        assert!((sum - 1.0).abs() < 1e-9, "{line}");
    }

    // The same probabilities, of a folder and of one picture.
    let arguments = ["predict", "--weights", checkpoint, "--format", "csv"];
    let asked = said(folder, &[&arguments[..], &["data/val"]].concat());
    assert_eq!(asked.lines().count(), 21);
    assert_eq!(numbers(&asked, 10), numbers(&table, 10));
    let class = fs::read_dir(folder.join("data/val"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let picture = format!("data/val/{}/0000.jpg", class.file_name().to_str().unwrap());
    let asked = [
        "predict",
        "--weights",
        checkpoint,
        "--format",
        "jsonl",
        &picture,
    ];
    let answer: Value = serde_json::from_str(&said(folder, &asked)).unwrap();
    assert_eq!(answer["path"], picture.as_str());
    let likeliest = answer["probabilities"].as_object().unwrap().iter();
    let likeliest = likeliest.max_by(|(_, a), (_, b)| a.as_f64().partial_cmp(&b.as_f64()).unwrap());
    assert_eq!(answer["decisions"][0], likeliest.unwrap().0.as_str());
    let asked = said(folder, &["predict", "--weights", checkpoint, &picture]);
    assert_eq!(asked.lines().count(), 6, "{asked}");
}

/// The share of pairs of a picture with the class and one without it in which the first is the more
/// probable: the definition of AUROC. Ties count half.
fn in_order(known: &[(f64, bool)]) -> f64 {
    let of = |kind| known.iter().filter(move |(_, applies)| *applies == kind);
    let pairs = of(true).flat_map(|one| of(false).map(move |other| (one.0, other.0)));
    let (mut sum, mut count) = (0.0, 0.0);
    for (one, other) in pairs {
        sum += match one.total_cmp(&other) {
            Ordering::Greater => 1.0,
            Ordering::Equal => 0.5,
            Ordering::Less => 0.0,
        };
        count += 1.0;
    }
    sum / count
}

#[test]
fn a_table_with_groups_and_unknown_labels_is_split_trained_and_evaluated() {
    let folder = with_table();
    let folder = folder.path();
    let arguments = [&SMALL[..], &["--epochs", "1", "--out", "run"]].concat();
    let split = ["--val", "0.25", "--group", "patient"];
    said(folder, &[&arguments[..], &TABLE, &split].concat());
    assert!(folder.join("run/split.csv").is_file());

    let checkpoint = "run/checkpoint.safetensors";
    let arguments = ["evaluate", "--weights", checkpoint, "--json", "scores.json"];
    let files = ["--predictions", "judged.csv"];
    let shown = said(folder, &[&arguments[..], &TABLE, &files].concat());
    assert!(!shown.contains("top-1"), "{shown}");
    let scores = scores(folder);
    assert_eq!(scores["top1_error"], Value::Null);
    assert_eq!(scores["known"]["odd"], 40);
    assert_eq!(scores["known"]["late"], 26);
    for (class, name) in ["odd", "late"].into_iter().enumerate() {
        let expected = in_order(&judged(folder, "labels.csv", class));
        let auroc = scores["auroc"]["by_class"][name].as_f64().unwrap();
        assert!(
            (auroc - expected).abs() < 1e-12,
            "{name}: {auroc} {expected}"
        );
    }
    let unsure = [
        "predict",
        "--weights",
        checkpoint,
        "--format",
        "jsonl",
        "data/val",
    ];
    for (threshold, decisions) in [("0", 2), ("1", 0)] {
        let asked = said(folder, &[&unsure[..], &["--threshold", threshold]].concat());
        for line in asked.lines() {
            let answer: Value = serde_json::from_str(line).unwrap();
            assert_eq!(
                answer["decisions"].as_array().unwrap().len(),
                decisions,
                "{line}"
            );
        }
    }
}

#[test]
fn names_of_classes_in_a_spec_are_those_of_the_pictures() {
    let folder = with_pictures();
    let words = format!("{SPEC}, classes: [\"cat\", \"dog\"]");
    let said = refusal(
        folder.path(),
        &["train", "--data", "data", "--spec", &words],
    );
    assert!(
        said.contains("the spec names the classes [\"cat\", \"dog\"]"),
        "{said}"
    );
}

#[test]
fn the_pictures_that_validated_a_run_are_judged_by_its_split() {
    let folder = with_pictures();
    let folder = folder.path();
    let shared = ["--data", "data/train"];
    let arguments = [&SMALL[..], &["--steps", "5"]].concat();
    let split = ["--val", "0.25", "--out", "run"];
    said(folder, &[&arguments[..], &shared, &split].concat());
    let weights = [
        "--weights",
        "run/checkpoint.safetensors",
        "--json",
        "scores.json",
    ];
    let judged = |more: &[&str]| {
        said(
            folder,
            &[&["evaluate"], &weights[..], &shared, more].concat(),
        );
        scores(folder)
    };
    let own = judged(&["--split", "run/split.csv"]);
    assert_eq!(own["pictures"], 10);
    let last = last_evaluation(&folder.join("run"));
    let [own, run] = [&own["loss"], &last["val_loss"]].map(|loss| loss.as_f64().unwrap());
    assert!((own - run).abs() < 1e-4 * run, "{own} {run}");
    assert_eq!(
        judged(&["--split", "run/split.csv", "--part", "train"])["pictures"],
        30
    );
    assert_eq!(judged(&[])["pictures"], 40);

    let refused = refusal(
        folder,
        &[
            "evaluate",
            "--weights",
            weights[1],
            "--data",
            "data",
            "--split",
            "run/split.csv",
        ],
    );
    assert!(
        refused.contains("data has validation pictures in data/val"),
        "{refused}"
    );
}

#[test]
fn a_resumed_run_keeps_its_split_and_refuses_another() {
    let folder = with_pictures();
    let folder = folder.path();
    let data = ["--data", "data/train"];
    let share = ["--val", "0.25"];
    let start = [
        "--seed", "7", "--epochs", "2", "--steps", "1", "--out", "run",
    ];
    said(folder, &[&SMALL[..], &data, &share, &start].concat());
    let split = || fs::read_to_string(folder.join("run/split.csv")).unwrap();
    let own = split();
    let resume = ["train", "--resume", "run/checkpoint.safetensors", "--steps"];
    // As an interrupted run prints it, and without the share.
    said(folder, &[&resume[..], &["2"], &data, &share].concat());
    assert_eq!(split(), own);
    said(folder, &[&resume[..], &["3"], &data].concat());
    assert_eq!(split(), own);
    let other = ["--val", "0.3"];
    let refused = refusal(folder, &[&resume[..], &["4"], &data, &other].concat());
    assert!(refused.contains("asks for others"), "{refused}");
    // A checkpoint that was copied without its split has the seed to draw it again.
    fs::create_dir(folder.join("alone")).unwrap();
    let alone = "alone/checkpoint.safetensors";
    fs::copy(folder.join(resume[2]), folder.join(alone)).unwrap();
    fs::copy(
        folder.join("run/best.safetensors"),
        folder.join("alone/best.safetensors"),
    )
    .unwrap();
    let resume = ["train", "--resume", alone, "--steps", "4"];
    said(folder, &[&resume[..], &data, &share].concat());
    assert_eq!(
        fs::read_to_string(folder.join("alone/split.csv")).unwrap(),
        own
    );
}

#[test]
fn a_split_stays_with_its_run() {
    let folder = with_pictures();
    let folder = folder.path();
    let share = ["--val", "0.25"];
    let run = |seed: &str| {
        let more = [
            "--data",
            "data/train",
            "--steps",
            "1",
            "--out",
            "run",
            "--seed",
            seed,
        ];
        said(folder, &[&SMALL[..], &share, &more].concat());
        fs::read_to_string(folder.join("run/split.csv")).unwrap()
    };
    let [first, second] = ["1", "2"].map(run);
    assert_ne!(first, second);
    let kept = fs::read_to_string(folder.join("run/previous-1/split.csv"));
    assert_eq!(kept.ok(), Some(first));
    // Refused runs change nothing.
    let resume = ["train", "--resume", "run/checkpoint.safetensors"];
    refusal(folder, &[&resume[..], &["--data", "data/val"]].concat());
    refusal(
        folder,
        &[&resume[..], &["--data", "data/train", "--freeze", "norms"]].concat(),
    );
    let now = fs::read_to_string(folder.join("run/split.csv")).unwrap();
    assert_eq!(now, second);
}

#[test]
fn a_later_table_has_labels_of_the_kind_of_the_first() {
    let folder = with_pictures();
    let folder = folder.path();
    let table = |name: &str, pictures: &[(usize, &str)]| {
        let mut lines = vec!["path,label".to_string()];
        for class in fs::read_dir(folder.join("data/train")).unwrap() {
            let class = class.unwrap().file_name().into_string().unwrap();
            let line = |(n, label): &(usize, &str)| format!("{class}/{n:04}.jpg,{label}");
            lines.extend(pictures.iter().map(line));
        }
        fs::write(folder.join(name), lines.join("\n")).unwrap();
    };
    table("train.csv", &[(0, "odd|late"), (1, "odd")]);
    table("val.csv", &[(2, "odd"), (3, "late")]);
    let run = ["--root", "data/train", "--steps", "1", "--out", "run"];
    let tables = ["--csv", "train.csv", "--val", "val.csv"];
    let shown = said(folder, &[&SMALL[..], &tables, &run].concat());
    assert!(shown.contains("decisions wrong"), "{shown}");
    let judge = [
        "evaluate",
        "--weights",
        "run/checkpoint.safetensors",
        "--csv",
        "val.csv",
    ];
    let files = ["--root", "data/train", "--json", "scores.json"];
    said(folder, &[&judge[..], &files].concat());
    assert_eq!(scores(folder)["top1_error"], Value::Null);
    // A name for none of the classes says so, too.
    table("none.csv", &[(0, "odd"), (1, "late"), (2, "nothing")]);
    let none = ["--csv", "none.csv", "--no-class", "nothing"];
    let shown = said(folder, &[&SMALL[..], &none, &run].concat());
    assert!(shown.contains("decisions wrong"), "{shown}");
}

/// A command on each of two ranks.
fn two_ranks(folder: &Path, commands: [Vec<&str>; 2]) -> [Output; 2] {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let mut rank = 0;
    let children = commands.map(|arguments| {
        let mut command = densenet(folder, &arguments);
        command
            .env("WORLD_SIZE", "2")
            .env("MASTER_ADDR", "127.0.0.1");
        command.env("MASTER_PORT", &port);
        for own in ["RANK", "LOCAL_RANK"] {
            command.env(own, rank.to_string());
        }
        rank += 1;
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    children.map(|child| child.wait_with_output().unwrap())
}

/// The second rank's checkpoint has no best one beside it.
#[test]
fn the_first_rank_alone_takes_the_best_checkpoint_along() {
    let folder = with_pictures();
    let folder = folder.path();
    let start = [
        "--data", "data", "--epochs", "2", "--steps", "2", "--out", "run",
    ];
    let start = [&SMALL[..], &start].concat();
    for output in two_ranks(folder, [start.clone(), start]) {
        support::said(output);
    }
    let checkpoint = "run/checkpoint.safetensors";
    let alone = "alone/checkpoint.safetensors";
    fs::create_dir(folder.join("alone")).unwrap();
    fs::copy(folder.join(checkpoint), folder.join(alone)).unwrap();
    let resume = |from, out| vec!["train", "--data", "data", "--resume", from, "--out", out];
    for output in two_ranks(folder, [resume(checkpoint, "next"), resume(alone, "other")]) {
        support::said(output);
    }
    assert!(folder.join("next/best.safetensors").is_file());
}

#[test]
fn a_table_with_a_column_for_each_class_is_judged_as_the_folders_are() {
    let folder = with_pictures();
    let folder = folder.path();
    train(folder, &["--steps", "1", "--out", "run"]);
    let names = fs::read_dir(folder.join("data/val")).unwrap();
    let names = names.map(|own| own.unwrap().file_name().into_string().unwrap());
    let mut classes: Vec<_> = names.collect();
    classes.sort();
    let mut table = format!("path,{}\n", classes.join(","));
    for class in &classes {
        for number in 0..2 {
            let row: Vec<_> = classes
                .iter()
                .map(|own| u8::from(own == class).to_string())
                .collect();
            table += &format!("{class}/{number:04}.jpg,{}\n", row.join(","));
        }
    }
    fs::write(folder.join("val.csv"), table).unwrap();
    let judged = |source: &[&str]| {
        let own = [
            "evaluate",
            "--weights",
            "run/checkpoint.safetensors",
            "--json",
            "scores.json",
        ];
        said(folder, &[&own[..], source].concat());
        scores(folder)
    };
    let by_folders = judged(&["--data", "data/val"]);
    assert!(by_folders["top1_error"].is_number());
    assert_eq!(
        judged(&["--csv", "val.csv", "--root", "data/val"]),
        by_folders
    );
}

#[test]
fn a_resumed_run_does_not_overwrite_another() {
    let folder = with_pictures();
    let folder = folder.path();
    for (seed, out) in [("1", "one"), ("2", "two")] {
        train(folder, &["--steps", "1", "--seed", seed, "--out", out]);
    }
    let there = || fs::read(folder.join("two/checkpoint.safetensors")).unwrap();
    let before = there();
    let resume = [
        "train",
        "--data",
        "data",
        "--resume",
        "one/checkpoint.safetensors",
        "--steps",
        "2",
    ];
    let refused = refusal(folder, &[&resume[..], &["--out", "two"]].concat());
    assert!(refused.contains("the files of another run"), "{refused}");
    assert!(there() == before);
    // The same where only the best checkpoint was kept.
    fs::remove_file(folder.join("two/checkpoint.safetensors")).unwrap();
    let best = || fs::read(folder.join("two/best.safetensors")).unwrap();
    let before = best();
    let refused = refusal(folder, &[&resume[..], &["--out", "two"]].concat());
    assert!(refused.contains("it is of another run"), "{refused}");
    assert!(best() == before);
    // Its own folder, by another name.
    said(folder, &[&resume[..], &["--out", "./two/../one"]].concat());
}

#[test]
fn a_run_is_resumed_in_its_own_folder_and_by_a_link() {
    let folder = with_pictures();
    let folder = folder.path();
    train(folder, &["--steps", "1", "--out", "run"]);
    let run = folder.join("run");
    let file = "checkpoint.safetensors";
    let within = [
        "train", "--data", "../data", "--resume", file, "--steps", "2",
    ];
    said(&run, &within);
    #[cfg(unix)]
    {
        fs::rename(run.join(file), folder.join("kept")).unwrap();
        std::os::unix::fs::symlink("../kept", run.join(file)).unwrap();
        let linked = ["--resume", "run/checkpoint.safetensors", "--steps", "3"];
        said(
            folder,
            &[&["train", "--data", "data"][..], &linked].concat(),
        );
    }
}

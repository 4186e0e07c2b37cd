//! The command line `densenet`, each of its commands as a program.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use densenet_runtime::plan::Plan;
use densenet_runtime::weights::{State, TensorFile, plan_of};
use drawn_pictures::Pictures;
use serde_json::Value;
use tempfile::TempDir;

/// A network that trains in no time.
const SPEC: &str = "blocks: [1, 1], k: 4, theta: 0.5, bottleneck, init: 8, input: [3, 32, 32]";

/// The command with arguments, to be run in a folder, on one thread.
fn densenet(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_densenet"));
    command.current_dir(folder).args(arguments);
    support::on_one_thread(command)
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    densenet(folder, arguments).output().unwrap()
}

/// What the command printed; it succeeded.
fn said(folder: &Path, arguments: &[&str]) -> String {
    let [said, _] = support::said(run(folder, arguments));
    said
}

/// What it said of what it refused.
fn refusal(folder: &Path, arguments: &[&str]) -> String {
    support::refusal(&run(folder, arguments))
}

/// A folder with pictures of ten classes: `data/train` and `data/val`.
fn with_pictures() -> TempDir {
    let folder = TempDir::new().unwrap();
    let pictures = Pictures {
        size: 64,
        train: 4,
        val: 2,
        ..Pictures::default()
    };
    drawn_pictures::make(folder.path().join("data"), &pictures).unwrap();
    folder
}

/// Trains the small network for some steps; returns what was said.
fn train(folder: &Path, more: &[&str]) -> String {
    let arguments = [
        "train",
        "--data",
        "data",
        "--spec",
        SPEC,
        "--batch-size",
        "8",
    ];
    said(folder, &[&arguments[..], more].concat())
}

fn plan_in(file: &Path) -> Plan {
    plan_of(&TensorFile::read(file).unwrap(), Some([32, 32])).unwrap()
}

#[test]
fn info_shows_a_preset_as_the_paper_does() {
    let here = Path::new(".");
    let shown = said(here, &["info", "densenet121"]);
    assert!(shown.starts_with(
        "DenseNet121\nblocks: [6, 12, 24, 16], k: 32, theta: 0.5, bottleneck\n\n121 layers, 7,978,856 parameters, 2.834 GMACs for an image of 3x224x224\n"
    ), "{shown}");
    assert!(shown.contains(
        "| block 3       |     14x14 |  1024 | 24 x [1x1 conv to 128, 3x3 conv to 32]       |"
    ));
    // Plan::training_footprint says the same (models/tests/snapshots).
    let memory = shown.lines().find(|line| line.starts_with("batch 64"));
    let words: Vec<_> = memory.unwrap().split_whitespace().take(6).collect();
    assert_eq!(words, ["batch", "64", "2.1", "GiB", "1.3", "GiB"]);
    let all = said(here, &["info"]);
    assert!(all.contains("cifar_bc_190_40 "), "{all}");
}

#[test]
fn info_reads_the_words_of_the_macro_and_shows_mistakes_with_a_caret() {
    let here = Path::new(".");
    let words = "blocks: [6, 12, 24, 16], k: 32, theta: 0.5, bottleneck, classes: 18";
    let shown = said(here, &["info", words, "--input", "1x224x224"]);
    // torchxrayvision's DenseNet-121.
    assert!(
        shown.contains("121 layers, 6,966,034 parameters"),
        "{shown}"
    );
    let said = refusal(
        here,
        &["info", "blocks: [2, 2], k: 12, theta: 1.5, grow: 3"],
    );
    assert_eq!(
        said,
        "error: compression `theta` must be in (0, 1], found 1.5
  |
1 | blocks: [2, 2], k: 12, theta: 1.5, grow: 3
  |                               ^^^
  = help: theta = 0.5 keeps half of the feature maps at each transition (the paper's DenseNet-BC)
error: unknown key `grow`; did you mean `k` (growth rate)?
  |
1 | blocks: [2, 2], k: 12, theta: 1.5, grow: 3
  |                                    ^^^^
  = help: the keys are `blocks`, `k`, `theta`, `bottleneck`, `stem`, `init`, `input`, `classes`, `dropout`, `memory`
"
    );
}

#[test]
fn info_refuses_names_and_sizes_that_no_network_has() {
    let here = Path::new(".");
    let said = refusal(here, &["info", "densenet122"]);
    assert!(said.starts_with("error: unknown preset \"densenet122\"; choose one of densenet121, "));
    let said = refusal(here, &["info", "densenet121", "--input", "16"]);
    assert!(
        said.contains("a 16x16 input is too small: 16 -> 8 (stem conv)"),
        "{said}"
    );
    let said = refusal(here, &["info", "densenet121", "--input", "16x"]);
    assert!(said.contains("write it as 224"), "{said}");
}

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
    let scores: Value =
        serde_json::from_slice(&fs::read(folder.join("scores.json")).unwrap()).unwrap();
    // What the run itself found, but for the folded form's rounding.
    let metrics = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let [own, run] = [&scores["loss"], &last["val_loss"]].map(|loss| loss.as_f64().unwrap());
    assert!((own - run).abs() < 1e-4 * run, "{own} {run}");
    assert_eq!(scores["top1_error"], last["top1_error"]);
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
    let [asked, table] = [&asked, &table].map(|text| {
        let numbers = |line: &str| -> Vec<String> {
            line.split(',')
                .skip(1)
                .take(10)
                .map(str::to_owned)
                .collect()
        };
        text.lines().map(numbers).collect::<Vec<_>>()
    });
    assert_eq!(asked, table);
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

#[test]
fn a_table_with_groups_and_unknown_labels_is_split_trained_and_evaluated() {
    let folder = with_pictures();
    let folder = folder.path();
    // Two independent classes; the second is unknown of each third picture. Patients have two
    // pictures each.
    let mut lines = vec!["path,patient,odd,late".to_string()];
    let mut count = 0;
    for entry in fs::read_dir(folder.join("data/train")).unwrap() {
        let class = entry.unwrap().file_name().into_string().unwrap();
        for number in 0..4 {
            let late = match count % 3 {
                0 => String::new(),
                _ => u8::from(number > 1).to_string(),
            };
            let odd = number % 2;
            lines.push(format!(
                "{class}/{number:04}.jpg,p{},{odd},{late}",
                count / 2
            ));
            count += 1;
        }
    }
    fs::write(folder.join("labels.csv"), lines.join("\n")).unwrap();
    let source = [
        "--csv",
        "labels.csv",
        "--root",
        "data/train",
        "--labels",
        "odd,late",
    ];
    let arguments = [
        "train",
        "--spec",
        SPEC,
        "--batch-size",
        "8",
        "--epochs",
        "1",
        "--out",
        "run",
    ];
    let split = ["--val", "0.25", "--group", "patient"];
    said(folder, &[&arguments[..], &source, &split].concat());
    assert!(folder.join("run/split.csv").is_file());

    let checkpoint = "run/checkpoint.safetensors";
    let arguments = ["evaluate", "--weights", checkpoint, "--json", "scores.json"];
    let shown = said(folder, &[&arguments[..], &source].concat());
    assert!(!shown.contains("top-1"), "{shown}");
    let scores: Value =
        serde_json::from_slice(&fs::read(folder.join("scores.json")).unwrap()).unwrap();
    assert_eq!(scores["top1_error"], Value::Null);
    assert_eq!(scores["known"]["odd"], 40);
    assert_eq!(scores["known"]["late"], 26);
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
fn other_classes_need_the_features_only_and_the_message_says_so() {
    let folder = with_pictures();
    let folder = folder.path();
    // Weights of the same layers for five classes.
    let words = format!("{SPEC}, classes: 5");
    let plan = densenet_spec::Spec::parse(&words).unwrap().plan;
    let weights = folder.join("weights.safetensors");
    let state = State::initial(&plan, 3);
    state.write(&plan, &weights).unwrap();
    let arguments = [
        "train",
        "--data",
        "data",
        "--spec",
        SPEC,
        "--batch-size",
        "8",
    ];
    let pretrained = ["--pretrained", "weights.safetensors", "--out", "run"];
    let refused = refusal(folder, &[&arguments[..], &pretrained].concat());
    assert!(refused.contains("--features-only"), "{refused}");
    assert!(!folder.join("run").exists());
    let shown = train(
        folder,
        &[
            &pretrained[..],
            &["--features-only", "--steps", "1", "--lr", "0"],
        ]
        .concat(),
    );
    assert!(shown.contains("classifier.weight"), "{shown}");
    // With a rate of 0 they are as they were.
    let checkpoint = folder.join("run/checkpoint.safetensors");
    let own = State::from_file(
        &plan_in(&checkpoint),
        &TensorFile::read(&checkpoint).unwrap(),
        densenet_runtime::weights::Unexpected::Ignore,
    )
    .unwrap();
    let features = plan.tensors().head.weight.start;
    assert_eq!(own.parameters[..features], state.parameters[..features]);
}

#[test]
fn weights_are_converted_there_and_back() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let plan = densenet_spec::Spec::parse(SPEC).unwrap().plan;
    let state = State::initial(&plan, 3);
    let [first, there, back] = ["a.safetensors", "b.pth", "c.safetensors"];
    state.write(&plan, folder.join(first)).unwrap();
    said(folder, &["convert", first, there]);
    let shown = said(folder, &["convert", there, back]);
    assert!(shown.contains("written to c.safetensors"), "{shown}");
    let read = |name: &str| State::read(&plan_in(&folder.join(name)), folder.join(name)).unwrap();
    assert_eq!(read(there), state);
    assert_eq!(read(back), state);
    let said = refusal(folder, &["convert", first, "d.onnx"]);
    assert!(said.contains("d.onnx"), "{said}");
    let shown = self::said(folder, &["info", there, "--input", "32"]);
    assert!(
        shown.contains("blocks: [1, 1], k: 4, theta: 0.5, bottleneck"),
        "{shown}"
    );
}

#[test]
fn bad_input_is_refused_by_what_is_wrong_with_it() {
    let folder = with_pictures();
    let folder = folder.path();
    let plan = densenet_spec::Spec::parse(SPEC).unwrap().plan;
    State::initial(&plan, 3)
        .write(&plan, folder.join("weights.safetensors"))
        .unwrap();
    fs::write(folder.join("damaged.safetensors"), b"no weights").unwrap();
    fs::write(
        folder.join("labels.csv"),
        "path,label\nnone.jpg,cat\nmore.jpg,dog\n",
    )
    .unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    let spec = ["--spec", SPEC];
    for (arguments, expected) in [
        (&["train"][..], "--data <DIR>"),
        (&["train", "--data", "none"], "none is missing"),
        (
            &["train", "--data", "data", "--model", "resnet50"],
            "unknown preset \"resnet50\"",
        ),
        (
            &["train", "--data", "data", "--spec", "blocks: [2]"],
            "needs `k` (growth rate)",
        ),
        (
            &[
                "train",
                "--data",
                "data",
                "--model",
                "densenet121",
                "--spec",
                SPEC,
            ],
            "cannot be used with",
        ),
        (
            &["train", "--data", "data", "--features-only"],
            "--pretrained <FILE>",
        ),
        (
            &["train", "--data", "data", "--val", "half"],
            "--val half: it is a share",
        ),
        (
            &["train", "--data", "data/train", "--val", "1.5"],
            "it must be above 0 and below 1",
        ),
        (
            &["train", "--data", "data", "--group", "patient"],
            "--group is for a table",
        ),
        (&["train", "--csv", "labels.csv"], "none.jpg"),
        (
            &["train", "--csv", "labels.csv", "--labels", "lable"],
            "lable",
        ),
        (
            &[
                "train",
                "--data",
                "data",
                "--input",
                "7",
                "--model",
                "densenet121",
            ],
            "7x7 input is too small",
        ),
        (
            &["train", "--data", "data", "--batch-size", "64"],
            "more than the 40 to train on",
        ),
        (
            &["train", "--data", "data", "--resume", "none.safetensors"],
            "cannot read none.safetensors",
        ),
        (
            &["evaluate", "--weights", "none", "--data", "data"],
            "cannot read none",
        ),
        (
            &[
                "evaluate",
                "--weights",
                "damaged.safetensors",
                "--data",
                "data",
            ],
            "damaged.safetensors",
        ),
        (
            &[
                "evaluate",
                "--weights",
                "weights.safetensors",
                "--data",
                "data",
                "--json",
                "none/file",
            ],
            "cannot write none/file",
        ),
        (
            &[
                "evaluate",
                "--weights",
                "weights.safetensors",
                "--data",
                "data",
                "--predictions",
                "none/file",
            ],
            "cannot write none/file",
        ),
        (
            &["predict", "--weights", "weights.safetensors"],
            "<PICTURE>",
        ),
        (
            &["predict", "--weights", "weights.safetensors", "none.jpg"],
            "the picture could not be read",
        ),
        (
            &["predict", "--weights", "weights.safetensors", "empty"],
            "there are no pictures in empty",
        ),
        (
            &[
                "predict",
                "--weights",
                "weights.safetensors",
                "--threshold",
                "2",
                "x.jpg",
            ],
            "from 0 to 1",
        ),
        (
            &["convert", "damaged.safetensors", "out.safetensors"],
            "damaged.safetensors",
        ),
        (&["new", "data", "--data", "data"], "cannot create data"),
        (
            &["new", "fresh", "--data", "data", "--runtime", "data"],
            "give it with --runtime",
        ),
    ] {
        let small = match arguments[0] {
            "train"
                if !arguments.contains(&"--spec")
                    && !arguments.contains(&"--model")
                    && !arguments.contains(&"--resume") =>
            {
                &spec[..]
            }
            _ => &[],
        };
        let said = refusal(folder, &[arguments, small].concat());
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    // Nothing was begun.
    assert!(!folder.join("out").exists() && !folder.join("fresh").exists());
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
fn a_picture_that_cannot_be_read_is_reported_and_the_others_are_still_asked_about() {
    let folder = with_pictures();
    let folder = folder.path();
    let words = format!("{SPEC}, classes: 10");
    let plan = densenet_spec::Spec::parse(&words).unwrap().plan;
    State::initial(&plan, 3)
        .write(&plan, folder.join("weights.safetensors"))
        .unwrap();
    fs::write(folder.join("broken.jpg"), b"no picture").unwrap();
    let list = "broken.jpg\n";
    fs::write(folder.join("list.txt"), list).unwrap();
    let arguments = [
        "predict",
        "--weights",
        "weights.safetensors",
        "--input",
        "32",
    ];
    let asked = ["--format", "csv", "--list", "list.txt", "data/val"];
    let output = run(folder, &[&arguments[..], &asked].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("broken.jpg is not"), "{errors}");
    assert!(
        errors.ends_with("error: 1 of 21 pictures could not be read\n"),
        "{errors}"
    );
    // A line of names, and one for each picture.
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 21);
}

#[test]
fn a_new_crate_trains_by_cargo_run() {
    let folder = with_pictures();
    let folder = folder.path();
    let shown = said(
        folder,
        &["new", "my-shapes", "--data", "data", "--spec", SPEC],
    );
    assert!(shown.contains("cd my-shapes && cargo run"), "{shown}");
    let made = folder.join("my-shapes");
    let program = fs::read_to_string(made.join("src/main.rs")).unwrap();
    assert!(
        program.contains("pub MyShapesNet {\n        blocks: [1, 1],"),
        "{program}"
    );
    // The dependencies are those that the tests are made with, and nothing is fetched. They are built
    // as for the tests, so that most are there.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::copy(root.join("Cargo.lock"), made.join("Cargo.lock")).unwrap();
    let own = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let profiles = &own[own.find("[profile.dev]").unwrap()..];
    let manifest = fs::read_to_string(made.join("Cargo.toml")).unwrap();
    let (start, rest) = manifest.split_once("# Training at full speed").unwrap();
    let (_, end) = rest.split_once("# A workspace").unwrap();
    let manifest = format!("{start}{profiles}\n# A workspace{end}");
    fs::write(made.join("Cargo.toml"), manifest).unwrap();
    let target = Path::new(env!("CARGO_BIN_EXE_densenet"))
        .ancestors()
        .nth(2)
        .unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["run", "--offline", "--quiet"])
        .current_dir(&made);
    cargo.env("CARGO_TARGET_DIR", target);
    let [said, _] = support::said(support::on_one_thread(cargo).output().unwrap());
    assert!(said.contains("best: top-1 error"), "{said}");
    assert!(made.join("out/checkpoint.safetensors").is_file());
    assert!(made.join("out/best.safetensors").is_file());
}

//! The examples that train on Fashion-MNIST with a recipe, and that evaluate what was trained so, as programs.

mod support;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use densenet_models::{CLOTHES_BC, ClothesBc, clothes_logits, mistakes};
use densenet_runtime::Network as _;
use densenet_runtime::cpu::FrozenOptions;
use densenet_runtime::data::idx;
use densenet_runtime::weights::State;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where the small data set is, and the options of a short run.
const COMMON: [&str; 6] = ["--data", "data", "--batch-size", "10", "--epochs", "2"];

/// The smallest networks of the comparison: the last two of sixteen.
const SMALLEST: [&str; 2] = ["15/16", "16/16"];

/// The file of results.
const ALL: &str = "all.jsonl";

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    support::fashion(&folder.path().join("data"), 40);
    folder
}

/// Compares networks, whose results are in a file.
fn compare(folder: &Path, file: &str, more: &[&str]) -> Output {
    let own = ["--out", file, "--seeds", "1"];
    let arguments = [&COMMON[..], &own, more].concat();
    let mut command = support::command("parameters_against_error", folder, &arguments);
    command.output().unwrap()
}

fn lines(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(ALL)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn networks_are_compared_in_portions_and_none_is_trained_twice() {
    let folder = folder();
    let folder = folder.path();
    support::said(compare(folder, ALL, &["--share", SMALLEST[0]]));
    let [said, _] = support::said(compare(folder, ALL, &["--share", SMALLEST[1]]));
    assert!(
        said.contains("1 to train, 1 of 16 are in all.jsonl"),
        "{said}"
    );
    let both = lines(folder);
    let own = |line: &Value| (line["kind"].clone(), line["depth"].clone());
    assert_eq!(own(&both[0]), (json!("DenseNet-C"), json!(13)));
    assert_eq!(own(&both[1]), (json!("DenseNet"), json!(10)));
    assert_eq!(both[1]["parameters"], 37_474);
    for line in &both {
        let curve = line["curve"].as_array().unwrap();
        assert_eq!((curve.len(), &line["images"]), (2, &json!(40)));
    }
    assert!(folder.join("all.png").is_file());

    let [said, _] = support::said(compare(folder, ALL, &["--share", SMALLEST[1]]));
    assert!(said.contains("0 to train, 2 of 16"), "{said}");
    assert_eq!(lines(folder), both);

    // A program that was killed has left half a line; the same seed gives the same network again.
    let file = folder.join(ALL);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, &text[..text.len() - 9]).unwrap();
    let [said, errors] = support::said(compare(folder, ALL, &["--share", SMALLEST[1]]));
    assert!(errors.contains("the last line is truncated"), "{errors}");
    assert!(said.contains("1 to train, 1 of 16"), "{said}");
    let again = lines(folder);
    assert_eq!(again.len(), 2);
    assert_eq!(again[1]["curve"], both[1]["curve"]);

    for (file, more, words) in [
        (
            ALL,
            ["--erase", "0.5"],
            "line 1 belongs to another recipe (2 epochs, 10 images a step",
        ),
        (
            ALL,
            ["--share", "3/2"],
            "write it as 2/3, for the second of three shares",
        ),
        (
            "other",
            ["--held-out", "40"],
            "--held-out 40: there are 40 images to train on",
        ),
        (
            "other",
            ["--erase", "1.5"],
            "must be from 0 to 1, found 1.5",
        ),
    ] {
        let said = support::refusal(&compare(folder, file, &more));
        assert!(said.contains(words), "{said}");
        assert!(!folder.join("other").exists());
    }
}

/// Errors that fall by a point each time that a network is twice as large; a plain one needs three
/// times the parameters.
#[test]
fn the_comparison_says_what_share_of_a_plain_networks_parameters_bc_needs() {
    let folder = folder();
    let folder = folder.path();
    // A network is trained, for the words of the recipe.
    support::said(compare(folder, ALL, &["--share", SMALLEST[1]]));
    let recipe = lines(folder)[0]["recipe"].clone();
    let mut text = String::new();
    for (kind, depths, more) in [
        ("DenseNet", [10, 16, 22, 40], 3.0),
        ("DenseNet-C", [13, 19, 28, 43], 2.5),
        ("DenseNet-B", [16, 28, 40, 76], 2.0),
        ("DenseNet-BC", [16, 28, 52, 100], 1.0),
    ] {
        for (size, depth) in depths.into_iter().enumerate() {
            let parameters = 64_000 << size;
            let error = 10.0 - (f64::from(parameters) / more / 16_000.0).log2();
            let line = json!({
                "kind": kind, "depth": depth, "growth": 12, "parameters": parameters,
                "multiply_adds": 1000 * parameters, "seed": 0, "recipe": recipe,
                "curve": [90_000_000, (1e6 * error).round() as u64], "images": 100_000_000, "seconds": 1.0,
                "device": "CPU",
            });
            text += &format!("{line}\n");
        }
    }
    fs::write(folder.join(ALL), text).unwrap();
    let [said, _] = support::said(compare(folder, ALL, &[]));
    assert!(said.contains("0 to train, 16 of 16"), "{said}");
    assert!(
        said.contains("| DenseNet-BC, L = 28 | 128,000 | 128.0 M | 7.00 | 7.00 |"),
        "{said}"
    );
    for needs in [
        "DenseNet, L = 16, has 8.58% with 128,000 parameters; no DenseNet-BC of these sizes is worse, or none is better",
        "DenseNet, L = 22, has 7.58% with 256,000 parameters; DenseNet-BC needs 85,333 for that, 0.33 of them",
        "DenseNet, L = 40, has 6.58% with 512,000 parameters; DenseNet-BC needs 170,667 for that, 0.33 of them",
    ] {
        assert!(said.contains(needs), "{needs}: {said}");
    }
}

#[test]
fn any_network_is_trained_with_the_recipe_and_goes_on_from_its_checkpoint() {
    let folder = folder();
    let folder = folder.path();
    let small = "blocks: [1, 1], k: 4, theta: 0.5, bottleneck, input: [1, 28, 28]";
    let run = |more: &[&str]| {
        let common = ["--spec", small, "--held-out", "10", "--erase", "0.5"];
        let arguments = [&COMMON[..], &common, more].concat();
        support::said(
            support::command("clothes", folder, &arguments)
                .output()
                .unwrap(),
        )
    };
    let [whole, _] = run(&["--out", "whole"]);
    assert!(
        whole.contains("30 pictures to train on, 10 to validate on"),
        "{whole}"
    );
    assert!(
        whole.contains("error on the images held out after the last step: "),
        "{whole}"
    );
    run(&["--out", "part", "--steps", "4"]);
    let other = [
        "--resume",
        "part/checkpoint.safetensors",
        "--weight-decay",
        "0.01",
    ];
    let other = [&COMMON[..], &["--spec", small], &other].concat();
    let said = support::refusal(
        &support::command("clothes", folder, &other)
            .output()
            .unwrap(),
    );
    assert!(said.contains("weight decay"), "{said}");
    run(&["--resume", "part/checkpoint.safetensors"]);
    let [one, both] = ["whole", "part"]
        .map(|run| fs::read(folder.join(run).join("checkpoint.safetensors")).unwrap());
    assert!(one == both, "the same run, the same checkpoint");

    let grey = ["--data", "data", "--spec", "blocks: [1], k: 4"];
    let said =
        support::refusal_at_once(&support::command("clothes", folder, &grey).output().unwrap());
    assert!(said.contains("28"), "{said}");
}

#[test]
fn the_error_of_trained_weights_is_printed_without_training() {
    let folder = folder();
    let folder = folder.path();
    let evaluate = |weights: &[&str]| {
        let arguments = [&["--data", "data", "--evaluate"], weights].concat();
        let mut command = support::command("fashion_mnist", folder, &arguments);
        command.output().unwrap()
    };
    let untrained = folder.join("untrained.safetensors");
    let state = State::initial(&ClothesBc::PLAN, 1);
    state.write(&ClothesBc::PLAN, &untrained).unwrap();
    let (_, test) = idx::train_and_test(folder.join("data"), &idx::FASHION).unwrap();
    let test = Arc::new(test);
    for (weights, file) in [
        (&[][..], Path::new(CLOTHES_BC)),
        (&["untrained.safetensors"], &untrained),
    ] {
        let logits = clothes_logits(file, test.clone(), FrozenOptions::for_batch(40)).unwrap();
        let wrong = mistakes(&logits, &*test);
        let percent = 2.5 * wrong as f64;
        let [said, _] = support::said(evaluate(weights));
        assert_eq!(
            said,
            format!("test error: {percent:.2}% ({wrong} of 40 images)\n")
        );
    }
    let said = support::refusal(&evaluate(&["none.safetensors"]));
    assert!(said.contains("none.safetensors"), "{said}");
    assert_eq!(
        fs::read_dir(folder).unwrap().count(),
        2,
        "nothing is written"
    );
}

#[test]
fn the_test_error_is_that_after_the_last_epoch() {
    let folder = folder();
    let folder = folder.path();
    let mut cases = 0;
    for seed in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        // The error goes up and down.
        let run = [
            "--data",
            "data",
            "--batch-size",
            "10",
            "--epochs",
            "8",
            "--lr",
            "2",
        ];
        let arguments = [&run[..], &["--seed", seed, "--out", seed]].concat();
        let mut command = support::command("fashion_mnist", folder, &arguments);
        let [said, _] = support::said(command.output().unwrap());
        let metrics = fs::read_to_string(folder.join(seed).join("metrics.jsonl")).unwrap();
        let lines = metrics
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let errors: Vec<f64> = lines
            .filter_map(|line| line["top1_error"].as_f64())
            .collect();
        let last = errors[errors.len() - 1];
        cases += usize::from(errors.iter().any(|error| *error < last));
        let words = format!("test error: {:.2}%", 100.0 * last);
        assert!(said.contains(&words), "{said}");
    }
    assert!(cases > 0, "the last error was the lowest in each run");
}

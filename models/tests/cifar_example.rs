//! The example for small images, end to end, on files as CIFAR's are.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::records;
use tempfile::TempDir;

/// Runs the example.
fn example(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(support::example("cifar_svhn"));
    command.args(arguments);
    command
}

/// Twenty images of CIFAR-100 to train on, and twenty to test on.
fn cifar100(data: &Path) {
    for file in ["train.bin", "test.bin"] {
        fs::write(
            data.join(file),
            records(20, 3072, |class| vec![0, 9 * class]),
        )
        .unwrap();
    }
    let names: String = (0..100).map(|class| format!("class {class}\n")).collect();
    fs::write(data.join("fine_label_names.txt"), names).unwrap();
}

/// The example's last words on the test set, in percent.
fn test_error(output: Output) -> f64 {
    let [said, _] = support::said(output);
    let line = said.lines().find_map(|line| {
        let percent = line.strip_prefix("test error: ")?;
        percent.strip_suffix('%')
    });
    line.unwrap_or_else(|| panic!("no test error in {said}"))
        .parse()
        .unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// On an emulated device, since a card is not at hand: from the command line to the checkpoint,
/// which the CPU resumes.
#[test]
fn on_a_cuda_device_a_step_is_that_of_the_cpu() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    support::cifar10(data, 1);
    let emulator = cuda_emulator::build(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let emulator = emulator.unwrap_or_else(|error| panic!("{error}"));
    let loss = |out: &str, more: &[&str]| {
        let out = data.join(out);
        let common = [
            "cifar10",
            "--data",
            text(data),
            "--augment",
            "--epochs",
            "1",
        ];
        let common = [
            &common[..],
            &["--batch-size", "2", "--out", text(&out)],
            more,
        ]
        .concat();
        let mut command = command(&common);
        command.env("LD_LIBRARY_PATH", &emulator);
        command.env("XDG_CACHE_HOME", data);
        test_error(command.output().unwrap());
        let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let last = metrics
            .lines()
            .rfind(|line| line.contains("\"loss\""))
            .unwrap();
        let line: serde_json::Value = serde_json::from_str(last).unwrap();
        line["loss"].as_f64().unwrap()
    };
    let first = ["--steps", "1"];
    let on_cuda = loss(
        "cuda",
        &[&first[..], &["--device", "cuda", "--precision", "bf16"]].concat(),
    );
    let on_cpu = loss("cpu", &first);
    assert!(
        (on_cuda / on_cpu - 1.0).abs() < 2e-2,
        "{on_cuda}, not {on_cpu}"
    );
    let checkpoint = data.join("cuda/checkpoint.safetensors");
    let resume = [
        "--steps",
        "2",
        "--precision",
        "bf16",
        "--resume",
        text(&checkpoint),
    ];
    assert!(loss("cuda", &resume).is_finite());
}

#[test]
fn it_learns_in_parts_and_writes_the_files_of_a_run() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    support::cifar10(data, 20);
    let out = data.join("out");
    let common = ["cifar10", "--data", text(data), "--augment"];
    let run = |out: &Path, more: &[&str]| {
        let more = [
            &["--epochs", "3", "--batch-size", "10", "--out", text(out)],
            more,
        ]
        .concat();
        example(&[&common[..], &more].concat())
    };
    let whole = test_error(run(&out, &[]));
    // By chance nine of ten are wrong.
    assert!(whole < 60.0, "{whole}%");
    for file in ["checkpoint.safetensors", "metrics.jsonl", "curves.png"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let other = data.join("other");
    let part = run(&other, &["--steps", "12"]);
    assert!(part.status.success());
    let checkpoint = other.join("checkpoint.safetensors");
    // Without --out it continues in the checkpoint's folder.
    let settings = ["--epochs", "3", "--batch-size", "10"];
    let resume = ["--resume", text(&checkpoint)];
    let rest = test_error(example(&[&common[..], &settings, &resume].concat()));
    assert_eq!(rest, whole);
    let [one, both] =
        [&out, &other].map(|out| fs::read(out.join("checkpoint.safetensors")).unwrap());
    assert!(one == both, "the same run, the same checkpoint");
}

#[test]
fn a_diverged_run_resumes_with_a_lower_rate_or_from_its_weights() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    support::cifar10(data, 20);
    let (out, other) = (data.join("out"), data.join("other"));
    let run = |out: &Path, more: &[&str]| {
        let common = [
            "cifar10",
            "--data",
            text(data),
            "--augment",
            "--epochs",
            "3",
        ];
        let settings = ["--batch-size", "10", "--out", text(out)];
        example(&[&common[..], &settings, more].concat())
    };
    assert!(run(&out, &["--steps", "10"]).status.success());
    let checkpoint = out.join("checkpoint.safetensors");
    let before = fs::read(&checkpoint).unwrap();
    let resume = |rate| run(&out, &["--resume", text(&checkpoint), "--lr", rate]);

    let diverged = resume("1e20");
    assert_eq!(diverged.status.code(), Some(1));
    let message = String::from_utf8_lossy(&diverged.stderr).into_owned();
    assert!(message.contains("training has diverged"), "{message}");
    assert!(message.contains("--resume FILE --lr RATE"), "{message}");
    assert!(fs::read(&checkpoint).unwrap() == before);

    test_error(resume("0.001"));
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let changes = metrics
        .lines()
        .filter(|line| line.contains("schedule_before"));
    assert_eq!(changes.count(), 1, "{metrics}");
    assert!(fs::read(&checkpoint).unwrap() != before);

    // A new run from the weights: its first loss is that of a network that has learnt.
    let first_loss = |more: &[&str]| {
        let more = [&["--steps", "1"], more].concat();
        assert!(run(&other, &more).status.success());
        let metrics = fs::read_to_string(other.join("metrics.jsonl")).unwrap();
        let line = metrics.lines().next().unwrap().to_string();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["step"], 1);
        value["loss"].as_f64().unwrap()
    };
    let fresh = first_loss(&[]);
    let learnt = first_loss(&["--weights", text(&checkpoint)]);
    assert!(learnt < 0.7 * fresh, "{learnt} after {fresh}");
}

#[test]
fn a_hundred_classes_without_augmentation_have_dropout() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    cifar100(data);
    let out = data.join("out");
    let output = example(&[
        "cifar100",
        "--data",
        text(data),
        "--epochs",
        "1",
        "--batch-size",
        "10",
        "--out",
        text(&out),
    ]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("DenseNetBC100K12C100Dropout"), "{said}");
    test_error(output);
}

#[test]
fn what_is_missing_is_named() {
    let folder = TempDir::new().unwrap();
    let nowhere = folder.path().join("nowhere");
    for (dataset, file) in [
        ("cifar10", "batches.meta.txt"),
        ("cifar100", "fine_label_names.txt"),
        ("svhn", "test_32x32.mat"),
    ] {
        let refusal = |data: &Path| support::refusal(&example(&[dataset, "--data", text(data)]));
        let said = refusal(&nowhere);
        let expected = format!(
            "error: {} is missing: it should be the folder",
            text(&nowhere)
        );
        assert!(said.starts_with(&expected), "{said}");
        let said = refusal(folder.path());
        let expected = format!("error: {} is missing", text(&folder.path().join(file)));
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn invalid_arguments_are_refused() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    cifar100(data);
    let out = data.join("out");
    for (arguments, expected) in [
        (["--steps", "0"], "0 is not in 1.."),
        (["--epochs", "0"], "at least 1 epoch"),
        (["--batch-size", "0"], "at least 1 image"),
        (
            ["--batch-size", "21"],
            "more than the 20 to train on; use --batch-size 20 or less",
        ),
    ] {
        let common = ["cifar100", "--data", text(data), "--out", text(&out)];
        let said = support::refusal_at_once(&example(&[&common[..], &arguments].concat()));
        assert!(said.contains(expected), "{said}");
    }
    assert!(!out.exists());
}

#[test]
fn digits_are_not_mirrored() {
    let folder = TempDir::new().unwrap();
    let svhn = ["svhn", "--data", text(folder.path()), "--augment"];
    let said = support::refusal_at_once(&example(&svhn));
    assert!(said.contains("digits must not be mirrored"), "{said}");
}

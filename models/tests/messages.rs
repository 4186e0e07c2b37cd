//! Output that cannot be written: a pipe whose reader has left, a full disk, a closed stream. It
//! ends no run, and no program panics.

#![cfg(unix)]

mod support;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use densenet_models::DenseNet121;
use densenet_runtime::Network;
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::weights::State;
use support::command;
use tempfile::TempDir;

/// Where a stream leads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    Test,
    /// A pipe whose reader has left.
    Nobody,
    FullDisk,
    /// `2>&-`
    Closed,
}

/// Runs a program with its streams led elsewhere.
fn run(command: &Command, out: To, errors: To) -> Output {
    let stream = |to: To| match to {
        To::Test | To::Closed => Stdio::piped(),
        To::Nobody => Stdio::from(std::io::pipe().unwrap().1),
        To::FullDisk => OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
            .into(),
    };
    // A shell closes streams.
    let closes = |to: To, what| if to == To::Closed { what } else { "" };
    let script = format!(
        "exec \"$0\" \"$@\" {} {}",
        closes(out, ">&-"),
        closes(errors, "2>&-")
    );
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(command.get_program());
    shell.args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    let mut shell = support::on_one_thread(shell);
    shell.stdout(stream(out)).stderr(stream(errors));
    shell.output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A program whose purpose is its output.
fn stops_where_nobody_reads(command: &Command) {
    let whole = run(command, To::Test, To::Test);
    assert!(whole.status.success(), "{command:?}: {}", errors(&whole));
    assert!(!whole.stdout.is_empty(), "{command:?} prints");
    let unread = run(command, To::Nobody, To::Test);
    assert_eq!(unread.status.code(), Some(0), "{command:?}");
    assert_eq!(errors(&unread), "", "{command:?}");
    let full = run(command, To::FullDisk, To::Test);
    assert_eq!(full.status.code(), Some(1), "{command:?}");
    let said = errors(&full);
    assert!(
        said.starts_with("error: cannot write to standard output: No space left"),
        "{said}"
    );
    let nowhere = run(command, To::FullDisk, To::FullDisk);
    assert_eq!(nowhere.status.code(), Some(1), "{command:?}");
}

#[test]
fn programs_end_quietly_when_their_pipe_closes_and_fail_on_a_full_disk() {
    let folder = TempDir::new().unwrap();
    for (name, arguments) in [
        ("roofline", &["--model", "cifar_40_12", "--launches"][..]),
        ("kernels", &["cifar_40_12"]),
        ("efficiency", &[]),
        (
            "bench",
            &["--model", "cifar_40_12", "--batch", "1", "--steps", "1"],
        ),
    ] {
        stops_where_nobody_reads(&command(name, folder.path(), arguments));
    }
}

#[test]
fn an_error_that_cannot_be_printed_is_a_failure_not_a_panic() {
    let folder = TempDir::new().unwrap();
    for (name, arguments) in [
        ("bench", &["--model", "none"][..]),
        ("cifar_svhn", &["cifar10", "--data", "none"]),
        ("dfdx_loop", &["--data", "none"]),
        ("efficiency", &["--out", "none/at/all.png"]),
        ("fashion_mnist", &["--data", "none"]),
        ("feature_reuse", &["--model", "none", "--weights", "none"]),
        ("imagenet_densenet201", &["--data", "none"]),
        (
            "parity",
            &[
                "--model",
                "densenet121",
                "--weights",
                "none",
                "--batch",
                "none",
                "--steps",
                "1",
                "--lr",
                "0",
                "--out",
                "out",
            ],
        ),
        ("predict", &["--weights", "none", "none.jpg"]),
        ("roofline", &["--model", "densenet121", "--batch", "0"]),
    ] {
        let command = command(name, folder.path(), arguments);
        for to in [To::Nobody, To::FullDisk, To::Closed] {
            let output = run(&command, To::Test, to);
            assert_eq!(output.status.code(), Some(1), "{name}, errors to {to:?}");
        }
        let said = errors(&run(&command, To::Test, To::Test));
        assert!(said.starts_with("error: "), "{name}: {said}");
    }
}

#[test]
fn help_into_a_closed_pipe_does_not_panic() {
    let folder = TempDir::new().unwrap();
    for name in ["predict", "kernels", "imagenet_densenet201"] {
        let help = command(name, folder.path(), &["--help"]);
        let output = run(&help, To::Nobody, To::Test);
        assert_eq!(output.status.code(), Some(0), "{name}");
        let wrong = command(name, folder.path(), &["--none"]);
        let output = run(&wrong, To::Test, To::FullDisk);
        assert_eq!(output.status.code(), Some(2), "{name}");
    }
}

/// A run writes the same files and, except on a full disk, succeeds.
fn trains_whoever_reads(run_in: impl Fn(&str) -> Command, out: &Path) {
    for (number, (said, errors, code)) in [
        (To::Nobody, To::Nobody, 0),
        (To::Closed, To::Closed, 0),
        (To::Test, To::FullDisk, 0),
        (To::FullDisk, To::FullDisk, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = format!("run-{number}");
        let output = run(&run_in(&folder), said, errors);
        assert_eq!(output.status.code(), Some(code), "{said:?} {errors:?}");
        for file in ["checkpoint.safetensors", "metrics.jsonl", "curves.png"] {
            assert!(out.join(&folder).join(file).is_file(), "{file}");
        }
    }
}

#[test]
fn training_finishes_even_if_nobody_reads_its_output() {
    let folder = TempDir::new().unwrap();
    support::cifar10(&folder.path().join("cifar"), 2);
    support::fashion(&folder.path().join("fashion"), 40);
    let cifar = ["cifar10", "--data", "cifar", "--augment", "--epochs", "1"];
    let cifar = [&cifar[..], &["--batch-size", "5"]].concat();
    let fashion = ["--data", "fashion", "--epochs", "1"];
    for (name, arguments) in [("cifar_svhn", &cifar[..]), ("fashion_mnist", &fashion)] {
        let out = folder.path().join(name);
        let run_in = |run: &str| {
            let out = out.join(run);
            let out = ["--out", out.to_str().unwrap()];
            command(name, folder.path(), &[arguments, &out].concat())
        };
        trains_whoever_reads(run_in, &out);
        // The files of the previous run are moved, without a message.
        let again = run(&run_in("run-0"), To::Nobody, To::Nobody);
        assert_eq!(again.status.code(), Some(0));
        assert!(out.join("run-0/previous-1/metrics.jsonl").is_file());
    }
}

/// Two pictures of each of ten classes, one of them unreadable.
fn broken_pictures(data: &Path) {
    support::pictures(data, 1);
    for set in ["train", "val"] {
        let broken = support::a_class(data, set).join("broken.jpg");
        fs::write(broken, b"no picture").unwrap();
    }
}

#[test]
fn a_skipped_picture_that_cannot_be_reported_does_not_end_a_run() {
    let folder = TempDir::new().unwrap();
    broken_pictures(&folder.path().join("data"));
    for (number, errors) in [To::Nobody, To::FullDisk, To::Closed]
        .into_iter()
        .enumerate()
    {
        let out = format!("out-{number}");
        let arguments = ["--data", "data", "--batch-size", "2", "--steps", "1"];
        let arguments = [&arguments[..], &["--out", &out]].concat();
        let train = command("imagenet_densenet201", folder.path(), &arguments);
        let output = run(&train, To::Test, errors);
        assert_eq!(output.status.code(), Some(0), "errors to {errors:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("(10 pictures, centre crop)"), "{said}");
    }
}

#[test]
fn predictions_stop_when_nobody_reads_and_unreadable_pictures_are_counted() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    support::pictures(&data, 1);
    let picture = support::a_class(&data, "val").join("0000.jpg");
    let picture = picture.to_str().unwrap();
    fs::write(folder.path().join("broken.jpg"), b"no picture").unwrap();
    let model = Cpu::seed_from_u64(3).build_module::<DenseNet121, f32>();
    let weights = folder.path().join("weights.safetensors");
    State::of(&model)
        .write(&DenseNet121::PLAN, &weights)
        .unwrap();
    let predict = |pictures: &[&str]| {
        let common = ["--model", "densenet121", "--weights", "weights.safetensors"];
        command("predict", folder.path(), &[&common[..], pictures].concat())
    };
    stops_where_nobody_reads(&predict(&[picture, picture]));

    // Those that can be read are predicted, before and after those that cannot.
    let some = predict(&["none.jpg", picture, "broken.jpg", picture]);
    for errors_to in [To::Test, To::Nobody, To::FullDisk, To::Closed] {
        let output = run(&some, To::Test, errors_to);
        assert_eq!(output.status.code(), Some(1), "{errors_to:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said.matches(picture).count(), 2, "{said}");
        assert_eq!(said.lines().count(), 12, "{said}");
        if errors_to == To::Test {
            let errors = errors(&output);
            let lines: Vec<_> = errors.lines().collect();
            assert_eq!(lines.len(), 3, "{errors}");
            assert!(
                lines[0].starts_with("error: cannot read none.jpg"),
                "{errors}"
            );
            assert!(lines[1].starts_with("error: broken.jpg is not"), "{errors}");
            assert_eq!(lines[2], "error: 2 of 4 pictures could not be read");
        }
    }
    let all = run(&predict(&["none.jpg", "broken.jpg"]), To::Test, To::Test);
    assert_eq!(all.status.code(), Some(1));
    assert!(all.stdout.is_empty());
    assert!(errors(&all).ends_with("error: 2 of 2 pictures could not be read\n"));
    let unread = run(&some, To::Nobody, To::Test);
    assert_eq!(unread.status.code(), Some(1));
}

//! Runs that are asked to end, and the command that they print: pasted into a shell it continues
//! the run, whatever the names of the folders.

#![cfg(unix)]

mod support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use densenet_runtime::train::Config;
use tempfile::TempDir;

/// A name that a shell takes for many things but a name.
fn awkward() -> OsString {
    OsString::from_vec(b"-my 'new'\n\"data\" $HOME `x` * \\ \xff".to_vec())
}

/// The command with signals as at a terminal: the parent of the tests may ignore some.
fn as_at_a_terminal(command: &Command) -> Command {
    let mut own = Command::new("env");
    own.arg("--default-signal=HUP,INT,TERM");
    own.arg(command.get_program()).args(command.get_args());
    own.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    if let Some(folder) = command.get_current_dir() {
        own.current_dir(folder);
    }
    own
}

/// Runs a program until it has done a step, sends it a signal, and waits for its end.
fn interrupted(command: Command, signal: &str) -> Output {
    let mut child = as_at_a_terminal(&command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("step 1/") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "no step was done");
    }
    kill(signal, child.id());
    // Read on, so that what it still says does not fail.
    let rest = std::thread::spawn(move || lines.lines().for_each(drop));
    let output = child.wait_with_output().unwrap();
    rest.join().unwrap();
    output
}

/// Sends a signal by the shell's own `kill`; a program of this name is not on every machine.
fn kill(signal: &str, process: u32) {
    let mut kill = Command::new("sh");
    kill.args(["-c", &format!("kill {signal} {process}")]);
    assert!(kill.status().unwrap().success());
}

/// The command that is printed after "to continue".
fn to_go_on(output: &Output) -> Vec<u8> {
    let said = &output.stdout;
    let text = String::from_utf8_lossy(said);
    assert_eq!(output.status.code(), Some(130), "{text}");
    let marker = b"to continue:\n  ";
    let start = said.windows(marker.len()).position(|part| part == marker);
    let line = &said[start.expect("how to continue") + marker.len()..];
    // The names have line breaks; "see ..." follows them.
    let end = line.windows(5).position(|part| part == b"\nsee ");
    line[..end.unwrap_or(line.len())].to_vec()
}

/// Interrupts a run, pastes what it prints into a shell, and expects the run's last words.
fn goes_on(example: &str, folder: &Path, arguments: &[&OsStr], last_words: &str) {
    let mut command = support::command(example, folder, &[]);
    command.args(arguments);
    let line = to_go_on(&interrupted(command, "-INT"));
    let shell = support::on_one_thread(Command::new("sh"))
        .arg("-c")
        .arg(OsStr::from_bytes(&line))
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&shell.stdout);
    let errors = String::from_utf8_lossy(&shell.stderr);
    let line = String::from_utf8_lossy(&line);
    assert!(shell.status.success(), "{line}: {errors}");
    assert!(said.contains(last_words), "{line}: {said}");
}

/// `--name=path`; clap takes a value with a dash in front in one word alone.
fn option(name: &str, path: impl AsRef<OsStr>) -> OsString {
    let mut option = OsString::from(name);
    option.push("=");
    option.push(path);
    option
}

fn words(words: &str) -> Vec<&OsStr> {
    words.split_whitespace().map(OsStr::new).collect()
}

#[test]
fn a_run_on_small_images_resumes_by_the_command_that_it_prints() {
    let folder = TempDir::new().unwrap();
    support::cifar10(&folder.path().join(awkward()), 20);
    for out in [
        Path::new("-out 'of' it").to_path_buf(),
        folder.path().join(awkward()),
    ] {
        let (data, out) = (option("--data", awkward()), option("--out", out));
        let common = words("cifar10 --augment --epochs 30 --batch-size 5 --steps 6 --seed 3");
        let arguments = [&common[..], &[&data, &out]].concat();
        goes_on("cifar_svhn", folder.path(), &arguments, "test error: ");
    }
}

#[test]
fn a_run_on_clothes_resumes_by_the_command_that_it_prints() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join(awkward());
    support::fashion(&data, 160);
    let (data, out) = (option("--data", &data), option("--out", awkward()));
    let arguments = [&words("--epochs 5 --seed 2")[..], &[&data, &out]].concat();
    goes_on("fashion_mnist", folder.path(), &arguments, "test error: ");
}

#[test]
fn a_run_on_pictures_resumes_by_the_command_that_it_prints() {
    let folder = TempDir::new().unwrap();
    support::pictures(&folder.path().join(awkward()), 2);
    let (data, out) = (option("--data", awkward()), option("--out", "-out"));
    let common = words("--batch-size 2 --steps 5 --threads 1");
    let arguments = [&common[..], &[&data, &out]].concat();
    let last = "validation after step 5: ";
    goes_on("imagenet_densenet201", folder.path(), &arguments, last);
}

/// A run of the example for small images, under `nohup` or with signals ignored as a shell does it.
fn under(shell: &str, folder: &Path, steps: &str) -> Command {
    let mut command = Command::new("sh");
    let arguments = ["cifar10", "--data", "data", "--augment", "--steps", steps];
    command.arg("-c").arg(shell);
    command.arg(support::example("cifar_svhn"));
    command.args(arguments).args(["--batch-size", "5"]);
    command.args(["--epochs", "30", "--out", "out"]);
    command.current_dir(folder);
    support::on_one_thread(command)
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    for shell in [
        "exec nohup \"$0\" \"$@\"",
        "trap '' HUP; exec \"$0\" \"$@\"",
    ] {
        let folder = TempDir::new().unwrap();
        support::cifar10(&folder.path().join("data"), 20);
        let command = under(shell, folder.path(), "6");
        let output = interrupted(command, "-HUP");
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("test error: "), "{shell}: {said}");
    }
}

#[test]
fn a_run_that_hangs_up_without_nohup_leaves_its_checkpoint() {
    for signal in ["-HUP", "-TERM"] {
        let folder = TempDir::new().unwrap();
        support::cifar10(&folder.path().join("data"), 20);
        let command = under("exec \"$0\" \"$@\"", folder.path(), "40");
        let output = interrupted(command, signal);
        assert_eq!(output.status.code(), Some(130), "{signal}");
        let checkpoint = folder.path().join("out/checkpoint.safetensors");
        assert!(fs::metadata(&checkpoint).unwrap().len() > 0);
        assert_eq!(Config::of_checkpoint(&checkpoint).unwrap().batch, 5);
    }
}

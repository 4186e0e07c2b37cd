use std::collections::BTreeMap;
use std::path::Path;

use super::super::fit;
use super::*;
use crate::train::{Fit, RunFolder};

/// A folder that is not there yet.
fn folder(temporary: &tempfile::TempDir) -> RunFolder {
    RunFolder::create(temporary.path().join("a/b")).unwrap()
}

fn run(folder: &RunFolder, runner: &mut Runner, train: &Images) -> Result<(), TrainError> {
    let fit = Fit {
        checkpoint: Some(folder.checkpoint()),
        best: Some(folder.best()),
        ..Fit::default()
    };
    let step = runner.position.step;
    let mut observers = folder.observers_from(step, "Regression")?;
    fit::run(runner, train, &Images::new(20, 8), &fit, &mut observers)?;
    Ok(())
}

/// The files of a folder, with what is in them.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

#[test]
fn each_new_run_keeps_the_files_of_all_before() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = folder(&temporary);
    let mut left = Vec::new();
    for seed in 1..4 {
        let mut runner = runner(Config { seed, ..config() });
        run(&folder, &mut runner, &Images::new(19, 8)).unwrap();
        left.push((runner.state().unwrap(), files(folder.path())));
    }
    let names: Vec<_> = left[0].1.keys().collect();
    assert_eq!(
        names,
        [
            "best.safetensors",
            "checkpoint.safetensors",
            "curves.png",
            "metrics.jsonl"
        ]
    );
    for (number, (state, before)) in (1..).zip(&left[..2]) {
        let kept = folder.path().join(format!("previous-{number}"));
        assert!(files(&kept) == *before, "previous-{number}");
        // And it can be resumed.
        let checkpoint = kept.join("checkpoint.safetensors");
        let mut resumed = runner(Config::of_checkpoint(&checkpoint).unwrap());
        resumed.restore(&checkpoint).unwrap();
        assert_eq!(resumed.state().unwrap(), *state);
    }
    assert!(!folder.path().join("previous-3").exists());
}

#[test]
fn a_run_that_goes_on_in_another_folder_takes_the_best_checkpoint_along() {
    let temporary = tempfile::tempdir().unwrap();
    let first = folder(&temporary);
    run(&first, &mut runner(config()), &Images::new(19, 8)).unwrap();
    let other = RunFolder::create(temporary.path().join("other")).unwrap();
    other.bring_best(first.checkpoint()).unwrap();
    let best = std::fs::read(first.best()).unwrap();
    assert!(std::fs::read(other.best()).unwrap() == best);
    // Again, as after a run that was killed before its first checkpoint.
    other.bring_best(first.checkpoint()).unwrap();
    // That of another run is refused; beside a checkpoint it is the run's own.
    std::fs::write(other.best(), "own").unwrap();
    let message = other.bring_best(first.checkpoint()).unwrap_err();
    let message = message.to_string();
    assert!(message.contains("it is of another run"), "{message}");
    std::fs::write(other.checkpoint(), "own").unwrap();
    other.bring_best(first.checkpoint()).unwrap();
    assert_eq!(std::fs::read(other.best()).unwrap(), b"own");
    // If there is no best checkpoint, this is reported before anything is trained.
    let third = RunFolder::create(temporary.path().join("third")).unwrap();
    let message = third.bring_best("nowhere/checkpoint.safetensors");
    let message = message.unwrap_err().to_string();
    assert!(message.contains("nowhere/best.safetensors"), "{message}");
}

#[test]
fn a_run_that_is_refused_leaves_all_files_as_they_were() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = folder(&temporary);
    run(&folder, &mut runner(config()), &Images::new(19, 8)).unwrap();
    let before = files(folder.path());
    // A checkpoint of an earlier step than the last line of the metrics, on other data.
    let mut early = runner(config());
    early.position.step = 2;
    early.position.epoch_steps = Some(3);
    run(&folder, &mut early, &Images::new(40, 8)).unwrap_err();
    assert!(files(folder.path()) == before);
    // And a start without images.
    run(&folder, &mut runner(config()), &Images::new(0, 8)).unwrap_err();
    assert!(files(folder.path()) == before);
    assert!(!folder.path().join("previous-1").exists());
}

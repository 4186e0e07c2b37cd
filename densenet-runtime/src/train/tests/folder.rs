use super::super::fit;
use super::*;
use crate::train::{Fit, RunFolder};

#[test]
fn a_new_run_keeps_the_files_of_the_one_before() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(temporary.path().join("a/b")).unwrap();
    let run = |seed| {
        let mut engine = engine(Config { seed, ..config() });
        let fit = Fit {
            checkpoint: Some(folder.checkpoint()),
            ..Fit::default()
        };
        let mut observers = folder.observers_from(0, "Regression").unwrap();
        let (train, validation) = (Images::new(19, 8), Images::new(20, 8));
        fit::run(&mut engine, &train, &validation, &fit, &mut observers).unwrap();
        engine
    };
    let first = run(1);
    let of_first = std::fs::read(folder.checkpoint()).unwrap();
    run(2);
    assert!(folder.curves().exists());
    let previous = folder.path().join("previous.safetensors");
    assert_eq!(std::fs::read(&previous).unwrap(), of_first);
    assert_ne!(std::fs::read(folder.checkpoint()).unwrap(), of_first);
    let mut resumed = engine(Config::of_checkpoint(&previous).unwrap());
    resumed.restore(&previous).unwrap();
    assert_eq!(resumed.state().unwrap(), first.state().unwrap());
}

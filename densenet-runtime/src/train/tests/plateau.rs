//! Runs whose evaluations stop improving.

use super::super::fit;
use super::*;
use crate::train::{Ending, Fit, Summary};

fn run(runner: &mut Runner, fit: &Fit, observer: &mut dyn Observer) -> Summary {
    fit::run(
        runner,
        &Images::new(19, 8),
        &Images::new(20, 8),
        fit,
        observer,
    )
    .unwrap()
}

#[test]
fn a_run_with_plateaus_goes_on_as_if_it_had_not_been_interrupted() {
    let config = Config {
        epochs: 8,
        schedule: Schedule::plateau(2.0, 0),
        ..config()
    };
    let mut whole = Memory::default();
    let mut whole_runner = runner(config.clone());
    run(&mut whole_runner, &Fit::default(), &mut whole);
    let rates = whole.0.iter().map(|report| report.learning_rate.to_bits());
    let rates = rates.collect::<std::collections::BTreeSet<_>>().len();
    assert!(rates > 2, "{rates} learning rates show little");

    let folder = tempfile::tempdir().unwrap();
    for at in 1..24 {
        let fit = Fit {
            checkpoint: Some(folder.path().join(format!("{at}.safetensors"))),
            ..Fit::default()
        };
        let mut before = InterruptAt(at, fit.interrupt.clone(), Memory::default());
        run(&mut runner(config.clone()), &fit, &mut before);
        let mut runner = runner(config.clone());
        runner.restore(fit.checkpoint.as_ref().unwrap()).unwrap();
        let mut after = Memory::default();
        run(&mut runner, &Fit::default(), &mut after);
        let steps = [before.2.steps(), after.steps()].concat();
        assert_eq!(steps, whole.steps(), "interrupted after step {at}");
        assert_eq!(runner.position, whole_runner.position);
    }
}

#[test]
fn an_evaluation_in_the_middle_of_an_epoch_changes_no_learning_rate() {
    let config = Config {
        epochs: 8,
        schedule: Schedule::plateau(2.0, 0),
        ..config()
    };
    let mut whole = Memory::default();
    run(&mut runner(config.clone()), &Fit::default(), &mut whole);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut steps = Vec::new();
    for limit in [2, 4, 5, 10, 11, 24] {
        let mut runner = runner(config.clone());
        if path.exists() {
            runner.restore(&path).unwrap();
        }
        let fit = Fit {
            steps: Some(limit),
            checkpoint: Some(path.clone()),
            ..Fit::default()
        };
        let mut memory = Memory::default();
        run(&mut runner, &fit, &mut memory);
        steps.extend(memory.steps());
    }
    assert_eq!(steps, whole.steps());
}

#[test]
fn a_run_ends_when_its_patience_does_and_stays_ended() {
    // Nothing is learned, so the first evaluation stays the best.
    let config = Config {
        epochs: 8,
        schedule: Schedule::constant(0.0),
        ..config()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let fit = Fit {
        patience: Some(2),
        checkpoint: Some(path.clone()),
        ..Fit::default()
    };
    let summary = run(&mut runner(config.clone()), &fit, &mut Memory::default());
    assert_eq!((summary.ending, summary.step), (Ending::Stalled, 9));

    let mut again = runner(config.clone());
    again.restore(&path).unwrap();
    let summary = run(&mut again, &fit, &mut Memory::default());
    assert_eq!((summary.ending, summary.step), (Ending::Stalled, 9));

    // Without patience the same run goes on.
    let mut patient = runner(config);
    patient.restore(&path).unwrap();
    let summary = run(&mut patient, &Fit::default(), &mut Memory::default());
    assert_eq!((summary.ending, summary.step), (Ending::Finished, 24));
}

#[test]
fn an_interrupted_run_keeps_count_of_its_patience() {
    let config = Config {
        epochs: 8,
        schedule: Schedule::constant(0.0),
        ..config()
    };
    let folder = tempfile::tempdir().unwrap();
    for at in [4, 6, 7, 8] {
        let fit = Fit {
            patience: Some(2),
            checkpoint: Some(folder.path().join(format!("{at}.safetensors"))),
            ..Fit::default()
        };
        let mut before = InterruptAt(at, fit.interrupt.clone(), Memory::default());
        run(&mut runner(config.clone()), &fit, &mut before);
        let mut runner = runner(config.clone());
        runner.restore(fit.checkpoint.as_ref().unwrap()).unwrap();
        let fit = Fit {
            patience: Some(2),
            ..Fit::default()
        };
        let summary = run(&mut runner, &fit, &mut Memory::default());
        assert_eq!((summary.ending, summary.step), (Ending::Stalled, 9));
    }
}

#[test]
fn an_evaluation_that_is_due_comes_before_the_end_of_patience() {
    let config = Config {
        epochs: 8,
        schedule: Schedule::constant(0.0),
        ..config()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let fit = Fit {
        patience: Some(2),
        checkpoint: Some(path.clone()),
        ..Fit::default()
    };
    // After the last step of the third epoch, and before its evaluation.
    let mut before = InterruptAt(9, fit.interrupt.clone(), Memory::default());
    let summary = run(&mut runner(config.clone()), &fit, &mut before);
    assert_eq!((summary.ending, summary.step), (Ending::Interrupted, 9));
    let mut again = runner(config);
    again.restore(&path).unwrap();
    let fit = Fit {
        patience: Some(2),
        ..Fit::default()
    };
    let summary = run(&mut again, &fit, &mut Memory::default());
    assert_eq!((summary.ending, summary.step), (Ending::Stalled, 9));
    assert_eq!(summary.evaluation.map(|own| own.step), Some(9));
}

#[test]
fn a_run_that_is_made_longer_keeps_its_plateaus() {
    let config = Config {
        epochs: 8,
        schedule: Schedule::plateau(2.0, 0),
        ..config()
    };
    let mut whole = Memory::default();
    run(&mut runner(config.clone()), &Fit::default(), &mut whole);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let fit = Fit {
        checkpoint: Some(path.clone()),
        ..Fit::default()
    };
    let shorter = Config {
        epochs: 6,
        ..config.clone()
    };
    let mut before = Memory::default();
    run(&mut runner(shorter), &fit, &mut before);
    let rate = |memory: &Memory| memory.0.last().map(|report| report.learning_rate);
    assert!(rate(&before) < Some(2.0), "a plateau came before");
    for asks in [false, true] {
        let mut longer = runner(config.clone());
        match asks {
            true => longer.restore_with_schedule(&path).unwrap(),
            false => longer.restore(&path).unwrap(),
        }
        let mut after = Memory::default();
        run(&mut longer, &Fit::default(), &mut after);
        let steps = [before.steps(), after.steps()].concat();
        assert_eq!(steps, whole.steps(), "{asks}");
    }
}

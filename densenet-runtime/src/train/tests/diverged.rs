//! Runs that diverge: nothing that was saved is lost, and they can be resumed.

use super::super::fit;
use super::*;
use crate::train::{Decay, Fit, Metric, Metrics, Milestone, lines};

/// Learning rates of 0.2, and from an epoch on of 2e25, which stands for whatever makes a run
/// diverge. The loss of the step that diverges is still finite; that of the next one is not.
fn diverging_after(epochs: f64) -> Config {
    Config {
        epochs: 4,
        schedule: Schedule {
            learning_rate: 0.2,
            warmup: 0.0,
            decay: Decay::Divide {
                at: vec![Milestone::Epoch(epochs)],
                by: 1e-26,
            },
        },
        ..config()
    }
}

/// One step an epoch.
fn one_step() -> Images {
    Images::new(8, 8)
}

fn error_of(runner: &mut Runner, train: &Images, fit: &Fit, observer: &mut dyn Observer) -> String {
    let validation = Images::new(20, 8);
    let error = fit::run(runner, train, &validation, fit, observer).unwrap_err();
    error.to_string()
}

#[test]
fn a_last_step_of_an_epoch_that_diverges_costs_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let fit = |steps| Fit {
        steps,
        checkpoint: Some(at("checkpoint.safetensors")),
        best: Some(at("best.safetensors")),
        ..Fit::default()
    };
    let files =
        || ["checkpoint.safetensors", "best.safetensors"].map(|n| std::fs::read(at(n)).unwrap());
    let metrics = at("metrics.jsonl");

    let mut good = runner(diverging_after(1.0));
    let mut written = Metrics::create(&metrics, 0).unwrap();
    fit::run(
        &mut good,
        &one_step(),
        &Images::new(20, 8),
        &fit(Some(1)),
        &mut written,
    )
    .unwrap();
    let before = files();
    let message = error_of(&mut good, &one_step(), &fit(None), &mut written);
    assert!(message.contains("validation loss is"), "{message}");
    assert!(message.contains("after step 2"), "{message}");
    assert!(files() == before);
    // The metrics can be read, and a run can continue in the folder.
    assert!(lines(&metrics).is_ok());

    // As the message says.
    let mut config = Config::of_checkpoint(at("checkpoint.safetensors")).unwrap();
    config.schedule = Schedule::constant(0.01);
    let mut resumed = runner(config);
    resumed
        .restore_with_schedule(&at("checkpoint.safetensors"))
        .unwrap();
    let mut written = Metrics::create(&metrics, resumed.position.step).unwrap();
    let summary = fit::run(
        &mut resumed,
        &one_step(),
        &Images::new(20, 8),
        &fit(None),
        &mut written,
    );
    assert_eq!(summary.unwrap().step, 4);
}

#[test]
fn a_first_best_is_not_of_a_network_that_has_diverged() {
    let folder = tempfile::tempdir().unwrap();
    let fit = Fit {
        best: Some(folder.path().join("best.safetensors")),
        checkpoint: Some(folder.path().join("checkpoint.safetensors")),
        ..Fit::default()
    };
    error_of(
        &mut runner(diverging_after(0.0)),
        &one_step(),
        &fit,
        &mut (),
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_step_that_diverges_before_a_checkpoint_within_an_epoch_costs_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let fit = Fit {
        checkpoint: Some(path.clone()),
        checkpoint_every: Some(1),
        ..Fit::default()
    };
    // Three steps an epoch: step 4 diverges, and a checkpoint is due after it.
    let mut diverging = runner(diverging_after(1.0));
    let message = error_of(&mut diverging, &Images::new(19, 8), &fit, &mut ());
    assert!(message.contains("training loss is"), "{message}");
    assert!(message.contains("after step 4"), "{message}");
    let mut resumed = runner(Config::of_checkpoint(&path).unwrap());
    resumed.restore(&path).unwrap();
    assert_eq!(resumed.position.step, 3);
}

#[test]
fn an_interrupt_after_a_step_that_diverges_costs_no_checkpoint() {
    // Within an epoch, and in its evaluation.
    for (train, step) in [(Images::new(19, 8), 4), (one_step(), 2)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let fit = Fit {
            checkpoint: Some(path.clone()),
            ..Fit::default()
        };
        let mut interrupting = InterruptAt(step, fit.interrupt.clone(), Memory::default());
        let mut diverging = runner(diverging_after(1.0));
        let message = error_of(&mut diverging, &train, &fit, &mut interrupting);
        assert!(message.contains("training has diverged"), "{message}");
        let mut resumed = runner(Config::of_checkpoint(&path).unwrap());
        resumed.restore(&path).unwrap();
        assert_eq!(resumed.position.epoch, 1);
    }
}

#[test]
fn the_look_at_the_weights_before_a_checkpoint_changes_nothing() {
    let run = |every| {
        let folder = tempfile::tempdir().unwrap();
        let fit = Fit {
            checkpoint: Some(folder.path().join("checkpoint.safetensors")),
            checkpoint_every: every,
            ..Fit::default()
        };
        let mut memory = Memory::default();
        let mut runner = runner(config());
        let images = Images::new(19, 8);
        fit::run(&mut runner, &images, &images, &fit, &mut memory).unwrap();
        (memory.steps(), runner.state().unwrap())
    };
    assert!(run(Some(1)) == run(None));
}

#[test]
fn a_loss_of_null_is_read_as_nan() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let nan = Metric::Evaluation {
        step: 2,
        epoch: 2.0,
        top1_error: Some(1.0),
        top5_error: Some(1.0),
        decision_error: None,
        auroc: None,
        average_precision: None,
        val_loss: f64::NAN,
    };
    std::fs::write(&path, serde_json::to_string(&nan).unwrap() + "\n").unwrap();
    let read = lines(&path).unwrap();
    let [Metric::Evaluation { step, val_loss, .. }] = read[..] else {
        panic!("{read:?}");
    };
    assert!(step == 2 && val_loss.is_nan());
}

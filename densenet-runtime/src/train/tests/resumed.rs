//! Resumed runs: with another schedule, and with a best checkpoint other than the one that the
//! checkpoint names.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::super::fit;
use super::*;
use crate::train::{
    Best, Evaluation, Fit, Metric, Metrics, Outline, ProgressBar, Rescheduled, Summary, lines,
};

fn train() -> Images {
    Images::new(19, 8)
}

fn run(runner: &mut Runner, fit: &Fit, observer: &mut dyn Observer) -> Summary {
    fit::run(runner, &train(), &Images::new(20, 8), fit, observer).unwrap()
}

/// The files of a run.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn fit(&self, steps: Option<u64>) -> Fit {
        Fit {
            steps,
            checkpoint: Some(self.at("checkpoint")),
            best: Some(self.at("best")),
            ..Fit::default()
        }
    }

    fn resumed(&self) -> Runner {
        resumed(&self.at("checkpoint"))
    }
}

fn resumed(path: &Path) -> Runner {
    let mut runner = runner(Config::of_checkpoint(path).unwrap());
    runner.restore(path).unwrap();
    runner
}

#[test]
fn a_run_takes_another_schedule_where_it_is_asked_by_name() {
    let files = Files::new();
    let metrics = files.at("metrics");
    let mut observer = Metrics::create(&metrics, 0).unwrap();
    run(&mut runner(config()), &files.fit(Some(4)), &mut observer);
    let lower = Config {
        epochs: 4,
        schedule: Schedule::constant(0.01),
        ..config()
    };
    // Not without being asked.
    let path = files.at("checkpoint");
    let message = runner(lower.clone())
        .restore(&path)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("learning rate was 0.2 and is 0.01"),
        "{message}"
    );
    // Nothing else with it.
    let other = Config {
        seed: 7,
        ..lower.clone()
    };
    let error = runner(other).restore_with_schedule(&path).unwrap_err();
    assert!(
        error.to_string().contains("seed was 42 and is 7"),
        "{error}"
    );

    let change = Rescheduled {
        step: 4,
        epochs: 4,
        schedule: Schedule::constant(0.01),
        epochs_before: 3,
        schedule_before: Schedule::halves(0.2),
    };
    // Twice: killed before its first checkpoint, it starts again from the same one.
    for _ in 0..2 {
        let mut runner = runner(lower.clone());
        runner.restore_with_schedule(&path).unwrap();
        let mut observer = Metrics::create(&metrics, runner.position.step).unwrap();
        let fit = Fit {
            checkpoint: None,
            ..files.fit(Some(5))
        };
        run(&mut runner, &fit, &mut observer);
    }
    let mut runner = runner(lower.clone());
    runner.restore_with_schedule(&path).unwrap();
    let mut observer = Metrics::create(&metrics, runner.position.step).unwrap();
    let summary = run(&mut runner, &files.fit(Some(7)), &mut observer);
    assert_eq!(summary.last.unwrap().learning_rate, 0.01);

    let changes: Vec<_> = lines(&metrics)
        .unwrap()
        .into_iter()
        .filter(|line| matches!(line, Metric::Rescheduled(_)))
        .collect();
    assert_eq!(changes, [Metric::Rescheduled(change.clone())]);
    // It is the run's own from now on: asked for or not.
    let mut after = files.resumed();
    assert_eq!(after.config.schedule, Schedule::constant(0.01));
    assert_eq!(after.rescheduled, [change]);
    let mut observer = Metrics::create(&metrics, after.position.step).unwrap();
    assert_eq!(run(&mut after, &files.fit(None), &mut observer).step, 12);
    let rescheduled = |line: &&Metric| matches!(line, Metric::Rescheduled(_));
    assert_eq!(
        lines(&metrics).unwrap().iter().filter(rescheduled).count(),
        1
    );
}

/// Ends a run after the first file that it writes for a step: a kill between the two.
struct KillAfter(u64);

impl Observer for KillAfter {
    fn checkpoint(&mut self, _: &Path, step: u64) -> Result<(), TrainError> {
        if step > self.0 {
            return Err(TrainError::Curves("killed".into()));
        }
        Ok(())
    }
}

/// A run whose later evaluations are better than the first.
fn improving() -> Config {
    Config {
        epochs: 6,
        ..config()
    }
}

#[test]
fn a_run_killed_between_its_two_files_ends_as_one_that_was_not() {
    let whole = Files::new();
    let end = run(&mut runner(improving()), &whole.fit(None), &mut ());
    let best = end.best.unwrap();
    assert!(best.step > 3, "the best is not the first: {best:?}");

    let files = Files::new();
    let mut killed = runner(improving());
    let fit = files.fit(None);
    let validation = Images::new(20, 8);
    let mut kill = KillAfter(best.step - 1);
    fit::run(&mut killed, &train(), &validation, &fit, &mut kill).unwrap_err();
    // The best is written first.
    assert_eq!(resumed(&files.at("best")).position.step, best.step);
    assert!(files.resumed().position.step < best.step);

    let summary = run(&mut files.resumed(), &fit, &mut ());
    assert_eq!(summary.best, Some(best));
    for name in ["checkpoint", "best"] {
        let [ours, theirs] = [&files, &whole].map(|files| std::fs::read(files.at(name)).unwrap());
        assert!(ours == theirs, "{name}");
    }
}

#[derive(Default)]
struct Notices(Vec<String>);

impl Observer for Notices {
    fn notice(&mut self, text: &str) -> Result<(), TrainError> {
        self.0.push(text.to_string());
        Ok(())
    }
}

#[test]
fn a_best_file_that_is_not_the_one_of_the_checkpoint_is_noticed() {
    let files = Files::new();
    // The best of the first epoch, and the checkpoint of a later one with a better best.
    run(&mut runner(improving()), &files.fit(Some(3)), &mut ());
    let first = std::fs::read(files.at("best")).unwrap();
    let best = loop {
        let mut runner = files.resumed();
        let step = runner.position.step + 3;
        let best = run(&mut runner, &files.fit(Some(step)), &mut ())
            .best
            .unwrap();
        if best.step > 3 {
            break best;
        }
    };
    let right = std::fs::read(files.at("best")).unwrap();

    // The checkpoint is of the best step itself: the file is made again.
    assert_eq!(files.resumed().position.step, best.step);
    for stale in [Some(&first), None] {
        match stale {
            Some(bytes) => std::fs::write(files.at("best"), bytes).unwrap(),
            None => std::fs::remove_file(files.at("best")).unwrap(),
        }
        let mut notices = Notices::default();
        run(
            &mut files.resumed(),
            &files.fit(Some(best.step)),
            &mut notices,
        );
        assert!(std::fs::read(files.at("best")).unwrap() == right);
        assert_eq!(notices.0.len(), 0);
    }

    // The checkpoint is newer: the file counts, and this is reported.
    let step = best.step + 1;
    let mut runner = files.resumed();
    let fit = Fit {
        best: None,
        ..files.fit(Some(step))
    };
    run(&mut runner, &fit, &mut ());
    std::fs::write(files.at("best"), &first).unwrap();
    let mut notices = Notices::default();
    let mut after = files.resumed();
    after.config.epochs = 1;
    let summary = run(&mut after, &files.fit(None), &mut notices);
    assert_eq!(summary.best.map(|best: Best| best.step), Some(3));
    assert!(notices.0[0].contains("is of step 3"), "{:?}", notices.0);

    std::fs::remove_file(files.at("best")).unwrap();
    let mut notices = Notices::default();
    let mut after = files.resumed();
    after.config.epochs = 1;
    assert_eq!(run(&mut after, &files.fit(None), &mut notices).best, None);
    assert!(notices.0[0].contains("is missing"), "{:?}", notices.0);

    // A damaged file is not overwritten.
    let mut damaged = right.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(files.at("best"), &damaged).unwrap();
    let mut after = files.resumed();
    let fit = files.fit(None);
    // Nor do the metrics lose the lines of steps after the checkpoint.
    let metrics = files.at("metrics");
    let line = r#"{"step":1000,"epoch":1,"loss":1.0,"lr":0.1,"images_per_s":1.0}"#;
    std::fs::write(&metrics, format!("{line}\n")).unwrap();
    let mut observer = Metrics::create(&metrics, after.position.step).unwrap();
    let validation = Images::new(20, 8);
    let error = fit::run(&mut after, &train(), &validation, &fit, &mut observer);
    assert!(error.unwrap_err().to_string().contains("damaged"));
    assert!(std::fs::read(files.at("best")).unwrap() == damaged);
    assert_eq!(lines(&metrics).unwrap().len(), 1);
}

/// Ends a run after its first evaluation, which is written down.
struct KillAfterEvaluation(Metrics);

impl Observer for KillAfterEvaluation {
    fn begin(&mut self, outline: &Outline) -> Result<(), TrainError> {
        self.0.begin(outline)
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        self.0.evaluation(evaluation)?;
        Err(TrainError::Curves("killed".into()))
    }
}

#[test]
fn an_evaluation_that_a_killed_run_wrote_down_is_not_there_twice() {
    let files = Files::new();
    let metrics = files.at("metrics");
    let written = |step| Metrics::create(&metrics, step).unwrap();
    let figures = || -> Vec<(u64, bool)> {
        let lines = lines(&metrics).unwrap();
        let of = |line: &Metric| (line.step(), matches!(line, Metric::Evaluation { .. }));
        lines.iter().map(of).collect()
    };
    run(&mut runner(config()), &files.fit(None), &mut written(0));
    let whole = figures();

    // Interrupted after the last step of an epoch: its checkpoint has the evaluation to come.
    let fit = files.fit(None);
    let mut observers: Vec<Box<dyn Observer>> = vec![
        Box::new(written(0)),
        Box::new(InterruptAt(3, fit.interrupt.clone(), Memory::default())),
    ];
    run(&mut runner(config()), &fit, &mut observers);
    // Killed between the evaluation's line and the checkpoint that follows, twice.
    for _ in 0..2 {
        let mut killed = KillAfterEvaluation(written(3));
        let fit = files.fit(None);
        let (train, validation) = (train(), Images::new(20, 8));
        let mut runner = files.resumed();
        fit::run(&mut runner, &train, &validation, &fit, &mut killed).unwrap_err();
    }
    run(&mut files.resumed(), &files.fit(None), &mut written(3));
    assert_eq!(figures(), whole);
}

/// Images with this many wrong labels, four fewer each time.
struct Worse(std::cell::Cell<usize>);

impl Batches for Worse {
    fn batches(&self) -> u64 {
        3
    }

    fn visit(
        &self,
        _: u32,
        _: u64,
        each: &mut dyn FnMut(Batch<'_>, usize) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let wrong = self.0.replace(self.0.get() - 4);
        let mut images = Images::new(20, 8);
        for label in &mut images.labels[..wrong] {
            *label = (*label + 1) % double::CLASSES as u32;
        }
        images.visit(0, 0, each)
    }
}

#[test]
fn the_best_so_far_is_that_of_the_whole_run() {
    let files = Files::new();
    let config = Config {
        epochs: 6,
        schedule: Schedule::constant(0.2),
        ..config()
    };
    run(&mut runner(config), &files.fit(Some(9)), &mut ());
    let mut after = files.resumed();
    let best = after.position.best.unwrap();
    assert!(best.score < 0.6, "{best:?}");
    let shown = files.at("shown");
    let mut bar = ProgressBar::lines(std::fs::File::create(&shown).unwrap());
    // Errors of about 1, 0.8 and 0.6.
    let validation = Worse(std::cell::Cell::new(20));
    let fit = files.fit(None);
    let end = fit::run(&mut after, &train(), &validation, &fit, &mut bar).unwrap();
    assert_eq!(end.best, Some(best));
    let shown = std::fs::read_to_string(shown).unwrap();
    assert!(!shown.contains("best so far"), "{shown}");
}

use super::super::fit;
use super::*;
use crate::train::{Curves, Ending, Evaluation, Fit, Interrupt, Metric, Metrics, Summary, lines};
use crate::weights::{Notes, TensorFile};

/// 19 images in batches of 8: 3 steps an epoch, the last with 3 images.
fn train() -> Images {
    Images::new(19, 8)
}

fn run(runner: &mut Runner, fit: &Fit, observer: &mut dyn Observer) -> Summary {
    fit::run(runner, &train(), &Images::new(20, 8), fit, observer).unwrap()
}

#[test]
fn a_run_learns_and_ends_with_its_epochs() {
    let mut runner = runner(Config {
        epochs: 30,
        ..config()
    });
    let mut memory = Memory::default();
    let summary = run(&mut runner, &Fit::default(), &mut memory);
    assert_eq!(summary.ending, Ending::Finished);
    assert_eq!((summary.step, memory.0.len()), (90, 90));
    assert!(memory.0[89].loss < 0.5 * memory.0[0].loss);
    let evaluation = summary.evaluation.unwrap();
    assert_eq!((evaluation.images, evaluation.epoch), (20, 30.0));
    assert!(evaluation.top1_error() < 0.3, "{evaluation:?}");
    assert!(summary.best.unwrap().score <= evaluation.top1_error());
}

#[test]
fn the_same_seed_gives_the_same_run_bit_for_bit() {
    let run = |seed| {
        let mut memory = Memory::default();
        let mut runner = runner(Config { seed, ..config() });
        run(&mut runner, &Fit::default(), &mut memory);
        (memory.steps(), runner.state().unwrap())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).1, run(2).1);
}

#[test]
fn the_rate_falls_where_the_schedule_says() {
    let mut memory = Memory::default();
    run(&mut runner(config()), &Fit::default(), &mut memory);
    let rates: Vec<f32> = memory.0.iter().map(|report| report.learning_rate).collect();
    // 9 steps: half is 4.5, three quarters are 6.75.
    let (whole, tenth, hundredth) = (0.2, 0.2 / 10.0, 0.2 / 100.0);
    let expected = [vec![whole; 5], vec![tenth; 2], vec![hundredth; 2]].concat();
    assert_eq!(rates, expected);
}

#[test]
fn a_run_that_was_interrupted_anywhere_goes_on_as_if_it_had_not_been() {
    let mut whole = Memory::default();
    let mut whole_runner = runner(config());
    run(&mut whole_runner, &Fit::default(), &mut whole);

    let folder = tempfile::tempdir().unwrap();
    for at in 1..9 {
        let fit = Fit {
            checkpoint: Some(folder.path().join(format!("{at}.safetensors"))),
            ..Fit::default()
        };
        let mut before = InterruptAt(at, fit.interrupt.clone(), Memory::default());
        let summary = run(&mut runner(config()), &fit, &mut before);
        assert_eq!((summary.ending, summary.step), (Ending::Interrupted, at));

        let mut runner = runner(config());
        runner.restore(fit.checkpoint.as_ref().unwrap()).unwrap();
        let mut after = Memory::default();
        let summary = run(&mut runner, &Fit::default(), &mut after);
        assert_eq!(summary.ending, Ending::Finished);
        let steps = [before.2.steps(), after.steps()].concat();
        assert_eq!(steps, whole.steps(), "interrupted after step {at}");
        assert_eq!(runner.state().unwrap(), whole_runner.state().unwrap());
        assert_eq!(runner.position, whole_runner.position);
    }
}

#[test]
fn a_limit_of_steps_ends_a_run_that_then_goes_on_as_if_it_had_none() {
    let mut whole = Memory::default();
    run(&mut runner(config()), &Fit::default(), &mut whole);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut steps = Vec::new();
    for limit in [2, 3, 7, 100] {
        let mut runner = runner(config());
        if path.exists() {
            runner.restore(&path).unwrap();
        }
        let fit = Fit {
            steps: Some(limit),
            checkpoint: Some(path.clone()),
            ..Fit::default()
        };
        let mut memory = Memory::default();
        let summary = run(&mut runner, &fit, &mut memory);
        assert_eq!(summary.step, limit.min(9));
        assert!(summary.evaluation.is_some());
        steps.extend(memory.steps());
    }
    assert_eq!(steps, whole.steps());
}

#[test]
fn the_best_checkpoint_is_that_of_the_lowest_validation_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("best.safetensors");
    let fit = Fit {
        best: Some(path.clone()),
        ..Fit::default()
    };
    // At this learning rate the errors go up and down.
    let mut trained = runner(Config {
        epochs: 20,
        schedule: Schedule::constant(4.0),
        ..config()
    });
    let mut evaluations = Errors::default();
    let summary = run(&mut trained, &fit, &mut evaluations);
    let least = evaluations.0.iter().copied().fold(1.0, f64::min);
    let last = evaluations.0.last().copied().unwrap();
    assert!(least < last, "{:?}", evaluations.0);

    let mut best = runner(Config::of_checkpoint(&path).unwrap());
    best.restore(&path).unwrap();
    assert_eq!(best.position.step, summary.best.unwrap().step);
    let images = Images::new(20, 8);
    let evaluated = fit::evaluate(&mut best, &images, &Interrupt::new(), false);
    let evaluation = evaluated.unwrap().evaluation;
    assert_eq!(evaluation.top1_error(), least);
}

/// Remembers the top-1 error of each evaluation.
#[derive(Default)]
struct Errors(Vec<f64>);

impl Observer for Errors {
    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        self.0.push(evaluation.top1_error());
        Ok(())
    }
}

#[test]
fn a_run_that_is_done_has_nothing_left_to_do() {
    let mut runner = runner(config());
    run(&mut runner, &Fit::default(), &mut ());
    let summary = run(&mut runner, &Fit::default(), &mut ());
    assert_eq!(summary.ending, Ending::Finished);
    assert_eq!((summary.step, summary.last), (9, None));
}

#[test]
fn other_data_than_the_checkpoints_is_refused() {
    let mut runner = runner(config());
    let fit = Fit {
        steps: Some(1),
        ..Fit::default()
    };
    run(&mut runner, &fit, &mut ());
    let more = Images::new(40, 8);
    let error = fit::run(&mut runner, &more, &more, &fit, &mut ()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("3 steps in an epoch"), "{message}");
    // And the run can still continue with its own.
    assert_eq!(run(&mut runner, &Fit::default(), &mut ()).step, 9);
}

#[test]
fn data_of_other_classes_than_the_checkpoints_is_refused_with_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let fit = Fit {
        steps: Some(1),
        checkpoint: Some(path.clone()),
        ..Fit::default()
    };
    let go_on = |classes: &[&str]| {
        let mut runner = runner(config());
        runner.restore(&path).unwrap();
        let train = train().named(classes);
        let fit = Fit::default();
        fit::run(&mut runner, &train, &Images::new(20, 8), &fit, &mut ())
    };
    let validation = Images::new(20, 8);
    let first = train().named(&["cat", "dog", "hen"]);
    fit::run(&mut runner(config()), &first, &validation, &fit, &mut ()).unwrap();
    let names = TensorFile::read(&path).unwrap().classes().unwrap();
    assert_eq!(names, ["cat", "dog", "hen"]);
    for (classes, difference) in [
        (
            &["cat", "cow", "hen"][..],
            "only the checkpoint has `dog`; only the data has `cow`",
        ),
        (&["cat", "dog", "hen", "owl"], "the checkpoint lacks `owl`"),
        (&["cat", "hen"], "the data lacks `dog`"),
        (
            &["dog", "cat", "hen"],
            "they are in another order: label 0 is `cat` in the checkpoint, but `dog` in the data",
        ),
    ] {
        let message = go_on(classes).unwrap_err().to_string();
        assert!(message.contains(difference), "{message}");
    }
    go_on(&["cat", "dog", "hen"]).unwrap();
    // Data without names is accepted, as before.
    go_on(&[]).unwrap();
}

#[test]
fn data_that_is_normalised_otherwise_than_the_checkpoints_is_refused_with_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let fit = Fit {
        steps: Some(1),
        checkpoint: Some(path.clone()),
        ..Fit::default()
    };
    let validation = Images::new(20, 8);
    let first = train().normalized(0.449, 0.226);
    fit::run(&mut runner(config()), &first, &validation, &fit, &mut ()).unwrap();
    let notes = Notes::of(&TensorFile::read(&path).unwrap()).unwrap();
    assert_eq!(notes.normalization, first.normalization);

    let go_on = |train: Images| {
        let mut runner = runner(config());
        runner.restore(&path).unwrap();
        let steps = Some(2);
        let fit = Fit {
            steps,
            ..fit.clone()
        };
        fit::run(&mut runner, &train, &validation, &fit, &mut ())
    };
    let message = go_on(train().normalized(0.5, 0.226))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains(
            "the checkpoint has mean 0.449 and std 0.226, but the data has mean 0.5 and std 0.226"
        ),
        "{message}"
    );
    go_on(first).unwrap();
    // Data without a normalisation is accepted, and the checkpoint keeps its own.
    go_on(train()).unwrap();
    let notes = Notes::of(&TensorFile::read(&path).unwrap()).unwrap();
    assert!(notes.normalization.is_some());
}

#[test]
fn a_run_without_images_is_refused() {
    let none = Images::new(0, 8);
    for (train, validation, word) in [
        (none, train(), "training"),
        (train(), Images::new(0, 8), "validation"),
    ] {
        let fit = Fit::default();
        let error = fit::run(&mut runner(config()), &train, &validation, &fit, &mut ());
        let message = error.unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn metrics_of_a_resumed_run_are_those_of_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = folder.path().join("metrics.jsonl");
    let checkpoint = folder.path().join("checkpoint.safetensors");
    let fit = |steps| Fit {
        steps,
        checkpoint: Some(checkpoint.clone()),
        checkpoint_every: Some(2),
        ..Fit::default()
    };
    // Without what depends on the clock.
    let figures = || -> Vec<(u64, Option<u64>)> {
        let of = |metric: &Metric| match *metric {
            Metric::Step { step, loss, .. } => (step, Some(loss.to_bits())),
            _ => (metric.step(), None),
        };
        lines(&metrics).unwrap().iter().map(of).collect()
    };
    run(
        &mut runner(config()),
        &fit(None),
        &mut Metrics::create(&metrics, 0).unwrap(),
    );
    let whole = figures();
    assert_eq!(whole.len(), 9 + 3);

    // A run that is killed after step 5: its checkpoint is of step 4, its last line cut off.
    struct KillAt5(Metrics);
    impl Observer for KillAt5 {
        fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
            self.0.step(report)?;
            if report.step == 5 {
                return Err(TrainError::Curves("killed".into()));
            }
            Ok(())
        }
        fn evaluation(&mut self, evaluation: &crate::train::Evaluation) -> Result<(), TrainError> {
            self.0.evaluation(evaluation)
        }
    }
    let mut killed = KillAt5(Metrics::create(&metrics, 0).unwrap());
    let (train, validation) = (train(), Images::new(20, 8));
    fit::run(
        &mut runner(config()),
        &train,
        &validation,
        &fit(None),
        &mut killed,
    )
    .unwrap_err();
    let text = std::fs::read_to_string(&metrics).unwrap();
    std::fs::write(&metrics, text + "{\"step\":6,\"epo").unwrap();

    let mut runner = runner(config());
    runner.restore(&checkpoint).unwrap();
    assert_eq!(runner.position.step, 4);
    let mut resumed = Metrics::create(&metrics, runner.position.step).unwrap();
    run(&mut runner, &fit(None), &mut resumed);
    assert_eq!(figures(), whole);
}

#[test]
fn metrics_have_the_keys_that_are_promised() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    run(
        &mut runner(config()),
        &Fit::default(),
        &mut Metrics::create(&path, 0).unwrap(),
    );
    let text = std::fs::read_to_string(&path).unwrap();
    let keys = |line: &str| -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    let first: Vec<&str> = text.lines().take(4).collect();
    assert_eq!(
        keys(first[0]),
        ["epoch", "images_per_s", "loss", "lr", "step"]
    );
    assert_eq!(
        keys(first[3]),
        ["epoch", "step", "top1_error", "top5_error", "val_loss"]
    );
}

#[test]
fn a_file_that_holds_no_metrics_is_not_overwritten_by_a_resumed_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let no_text = b"{\"step\":\xff}\n";
    // Written again, an infinite learning rate would be `null`.
    let no_rate = br#"{"step":1,"epoch":1,"loss":1.0,"lr":1e39,"images_per_s":1.0}"#;
    let no_rate = [no_rate, &b"\n"[..]].concat();
    for bytes in [b"step,loss\n1,2.0\n", &no_text[..], &no_rate] {
        std::fs::write(&path, bytes).unwrap();
        let message = Metrics::create(&path, 3).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl, line 1: "), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn curves_are_drawn_as_a_picture_in_colour() {
    let folder = tempfile::tempdir().unwrap();
    let (metrics, picture) = (
        folder.path().join("metrics.jsonl"),
        folder.path().join("curves.png"),
    );
    let mut observers: Vec<Box<dyn Observer>> = vec![
        Box::new(Metrics::create(&metrics, 0).unwrap()),
        Box::new(Curves::new(&metrics, &picture, "Regression")),
    ];
    run(&mut runner(config()), &Fit::default(), &mut observers);
    let image = crate::data::read(&picture).unwrap();
    let coloured = |&[r, g, b]: &[u8; 3]| r.abs_diff(g).max(g.abs_diff(b)) > 60;
    let pixels = image.pixels.as_chunks().0.iter();
    let line_pixels = pixels.filter(|pixel| coloured(pixel)).count();
    assert!(line_pixels > 1000, "{line_pixels}");
}

#[test]
fn a_run_that_begins_with_single_steps_can_be_resumed() {
    for singles in [3, 5, 6] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let mut first = runner(config());
        for _ in 0..singles {
            first
                .step(train().first(8), std::time::Instant::now())
                .unwrap();
        }
        let fit = Fit {
            checkpoint: Some(path.clone()),
            ..Fit::default()
        };
        let summary = run(&mut first, &fit, &mut ());
        assert_eq!((summary.ending, summary.step), (Ending::Finished, 9));
        runner(config()).restore(&path).unwrap();
    }
}

#[test]
fn single_steps_between_the_parts_of_a_run_count_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut own = runner(config());
    let part = Fit {
        steps: Some(2),
        ..Fit::default()
    };
    run(&mut own, &part, &mut ());
    for _ in 0..2 {
        own.step(train().first(8), std::time::Instant::now())
            .unwrap();
    }
    own.save(&path).unwrap();
    runner(config()).restore(&path).unwrap();
    let fit = Fit {
        checkpoint: Some(path.clone()),
        ..Fit::default()
    };
    let summary = run(&mut own, &fit, &mut ());
    assert_eq!((summary.ending, summary.step), (Ending::Finished, 9));
    runner(config()).restore(&path).unwrap();
}

/// Says that its epochs are shorter than they are.
struct Short(Images);

impl Batches for Short {
    fn batches(&self) -> u64 {
        2
    }

    fn visit(
        &self,
        epoch: u32,
        first: u64,
        each: &mut dyn FnMut(Batch<'_>, usize) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.visit(epoch, first, each)
    }
}

#[test]
fn an_epoch_ends_after_its_batches_even_if_there_are_more() {
    #[derive(Default)]
    struct Epochs(Vec<f64>);
    impl Observer for Epochs {
        fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
            self.0.push(evaluation.epoch);
            Ok(())
        }
    }
    let (train, validation) = (Short(Images::new(40, 8)), Images::new(20, 8));
    let (mut own, mut seen) = (runner(config()), Epochs::default());
    let summary = fit::run(&mut own, &train, &validation, &Fit::default(), &mut seen).unwrap();
    assert_eq!((summary.ending, summary.step), (Ending::Finished, 6));
    assert_eq!(seen.0, [1.0, 2.0, 3.0]);
}

//! Runs with several labels per picture, some of them unknown: the reports, the best evaluation,
//! the files, and that ranks evaluate all images together.

use std::cell::RefCell;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::thread;

use densenet_runtime::parallel::{Parallel, Threads};
use densenet_runtime::plan::{Precision, Recompute};
use densenet_runtime::train::{
    Batches, BestBy, Config, Evaluation, Fit, Metric, Observer, Predictions, RunFolder, Schedule,
    ThresholdRule, TrainError, Trainer, lines,
};
use densenet_runtime::weights::{Notes, TensorFile};
use densenet_runtime::{Batch, LossWeights, Network, Pixels, Targets};
use densenet_tests::executor::{load, on_cpu};
use densenet_tests::{random, small_run::Tiny};
use dfdx::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const CLASSES: usize = 3;
const IMAGE: usize = 3 * 8 * 8;

/// Pictures, each with its yes or no for whether a channel is bright. Some are unknown.
struct Bright {
    pixels: Vec<f32>,
    targets: Vec<f32>,
    batch: usize,
}

impl Bright {
    fn new(images: usize, batch: usize, unknown: f64, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut pixels, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..images {
            for _ in 0..CLASSES {
                let is_bright = rng.gen_bool(0.4);
                let level = if is_bright { 0.6 } else { -0.6 };
                pixels.extend((0..64).map(|_| level + rng.gen_range(-1.0..1.0f32)));
                targets.push(match rng.gen_bool(unknown) {
                    true => f32::NAN,
                    false => f32::from(u8::from(is_bright)),
                });
            }
        }
        Self {
            pixels,
            targets,
            batch,
        }
    }

    /// Every second image, from one of the first two on.
    fn part(&self, rank: usize) -> Self {
        let every = |values: &[f32], size: usize| {
            let rows = values.chunks_exact(size).skip(rank).step_by(2);
            rows.flatten().copied().collect()
        };
        Self {
            pixels: every(&self.pixels, IMAGE),
            targets: every(&self.targets, CLASSES),
            batch: self.batch,
        }
    }
}

impl Batches for Bright {
    fn batches(&self) -> u64 {
        self.targets.len().div_ceil(CLASSES * self.batch) as u64
    }

    fn visit(
        &self,
        _: u32,
        first: u64,
        each: &mut dyn FnMut(Batch<'_>, usize) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let batches = self.pixels.chunks(self.batch * IMAGE);
        let batches = batches.zip(self.targets.chunks(self.batch * CLASSES));
        for (pixels, targets) in batches.skip(first as usize) {
            let batch = Batch {
                pixels: Pixels::Nchw(pixels),
                targets: Targets::Independent(targets),
            };
            if each(batch, 1).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn config() -> Config {
    Config {
        epochs: 8,
        batch: 8,
        accumulation: 2,
        schedule: Schedule::constant(0.05),
        loss_weights: LossWeights {
            positive: vec![1.5; CLASSES],
            ..LossWeights::default()
        },
        threads: 1,
        ..Config::cifar()
    }
}

fn trainer(config: Config) -> Trainer<Tiny> {
    let model = Cpu::seed_from_u64(1).build_module::<Tiny, f32>();
    Trainer::new(model, config).unwrap()
}

#[derive(Clone, Default)]
struct Evaluations(Rc<RefCell<Vec<Evaluation>>>);

impl Observer for Evaluations {
    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        self.0.borrow_mut().push(*evaluation);
        Ok(())
    }
}

#[test]
fn the_best_evaluation_has_the_highest_mean_auroc_and_the_metrics_show_it() {
    let (train, val) = (Bright::new(80, 8, 0.3, 1), Bright::new(50, 8, 0.3, 2));
    let folder = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(folder.path()).unwrap();
    let mut trainer = trainer(config());
    let fit = Fit {
        best: Some(folder.best()),
        ..folder.fit()
    };
    let mut observers = folder.observers(&trainer, "Bright channels").unwrap();
    let evaluations = Evaluations::default();
    observers.push(Box::new(evaluations.clone()));
    let summary = trainer.fit(&train, &val, &fit, &mut observers).unwrap();

    let known = val.targets.iter().filter(|target| !target.is_nan()).count();
    let aurocs: Vec<f64> = evaluations
        .0
        .borrow()
        .iter()
        .map(|evaluation| {
            assert!(evaluation.independent);
            assert_eq!((evaluation.known, evaluation.by), (known, BestBy::Auroc));
            evaluation.means.unwrap().auroc.unwrap()
        })
        .collect();
    let most = aurocs.iter().copied().fold(0.0, f64::max);
    assert!(most > 0.75, "{aurocs:?}");
    let best = summary.best.unwrap();
    assert_eq!((best.by, best.score), (BestBy::Auroc, most));

    let written: Vec<_> = lines(&folder.metrics())
        .unwrap()
        .into_iter()
        .filter_map(|line| match line {
            Metric::Evaluation {
                top1_error,
                decision_error,
                auroc,
                average_precision,
                ..
            } => {
                assert_eq!(top1_error, None);
                assert!(decision_error.is_some() && average_precision.is_some());
                auroc
            }
            _ => None,
        })
        .collect();
    assert_eq!(written, aurocs);
    assert!(folder.curves().exists());

    // The best file gives that evaluation again.
    let mut again = self::trainer(config());
    again.resume(folder.best()).unwrap();
    let (evaluation, predictions) = again.predict(&val).unwrap();
    assert_eq!(evaluation.score(), Some(most));
    assert_eq!(Some(predictions.scores().means), evaluation.means);
    assert_eq!(predictions.images(), 50);
}

#[test]
fn a_run_is_not_resumed_with_other_weights_or_another_score() {
    let (train, val) = (Bright::new(16, 8, 0.3, 1), Bright::new(16, 8, 0.3, 2));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let fit = Fit {
        checkpoint: Some(path.clone()),
        steps: Some(2),
        ..Fit::default()
    };
    trainer(config()).fit(&train, &val, &fit, &mut ()).unwrap();
    assert_eq!(
        Config::of_checkpoint(&path).unwrap().loss_weights,
        config().loss_weights
    );
    let other = Config {
        loss_weights: LossWeights::default(),
        best_by: BestBy::Loss,
        ..config()
    };
    let error = trainer(other).resume(&path).unwrap_err().to_string();
    assert!(
        error.contains("positive weights was [1.5, 1.5, 1.5] and is 1 for each"),
        "{error}"
    );
    assert!(
        error.contains("score of the best evaluation was"),
        "{error}"
    );
    trainer(config()).resume(&path).unwrap();
}

#[test]
fn an_evaluation_without_an_auroc_is_no_best_one_and_says_so() {
    struct Notices(Vec<String>);
    impl Observer for Notices {
        fn notice(&mut self, text: &str) -> Result<(), TrainError> {
            self.0.push(text.into());
            Ok(())
        }
    }
    let train = Bright::new(16, 8, 0.3, 1);
    let unknown = Bright::new(8, 8, 1.0, 2);
    let mut notices = Notices(Vec::new());
    let config = Config {
        epochs: 1,
        ..config()
    };
    let summary = trainer(config).fit(&train, &unknown, &Fit::default(), &mut notices);
    let summary = summary.unwrap();
    assert_eq!(summary.best, None);
    let evaluation = summary.evaluation.unwrap();
    assert_eq!((evaluation.known, evaluation.loss), (0, 0.0));
    assert!(
        notices
            .0
            .iter()
            .any(|text| text.contains("has no mean AUROC")),
        "{:?}",
        notices.0
    );
}

#[test]
fn the_thresholds_of_the_last_evaluation_are_in_the_runs_files_and_survive_a_resume() {
    let (train, val) = (Bright::new(80, 8, 0.3, 1), Bright::new(50, 8, 0.3, 2));
    let folder = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(folder.path()).unwrap();
    let rule = ThresholdRule::Sensitivity(0.9);
    let config = Config {
        epochs: 2,
        threshold: Some(rule),
        ..config()
    };
    let mut first = trainer(config.clone());
    first.fit(&train, &val, &folder.fit(), &mut ()).unwrap();
    let noted = |file: &Path| {
        Notes::of(&TensorFile::read(file).unwrap())
            .unwrap()
            .thresholds
    };
    let own = noted(&folder.checkpoint());
    let expected = first.predict(&val).unwrap().1.thresholds(rule);
    assert!(own.iter().all(Option::is_some), "{own:?}");
    assert_eq!(own, expected);

    // One that has not evaluated yet has those that were chosen before.
    let mut resumed = trainer(Config {
        threshold: None,
        ..config
    });
    resumed.resume(folder.checkpoint()).unwrap();
    let again = folder.path().join("again.safetensors");
    resumed.save(&again).unwrap();
    assert_eq!(noted(&again), own);
}

#[test]
fn label_smoothing_is_refused_before_anything_has_changed() {
    let train = Bright::new(16, 8, 0.3, 1);
    let smooth = Config {
        label_smoothing: 0.1,
        ..config()
    };
    let mut trainer = trainer(smooth);
    let error = trainer
        .fit(&train, &train, &Fit::default(), &mut ())
        .unwrap_err();
    assert!(
        error.to_string().contains("label smoothing is 0.1"),
        "{error}"
    );
    assert_eq!(trainer.steps(), 0);
}

/// The results of trainers with a part of the images each.
fn predict(parts: &[&Bright]) -> Vec<(Evaluation, Predictions)> {
    let ranks = Threads::group(parts.len()).into_iter().zip(parts);
    thread::scope(|scope| {
        let threads: Vec<_> = ranks
            .map(|(collective, images)| {
                scope.spawn(move || {
                    let nothing = Recompute::Nothing;
                    let executor = on_cpu(&Tiny::PLAN, 8, nothing, Precision::F32);
                    let executor = Parallel::new(Box::new(executor), Box::new(collective));
                    let model = Cpu::seed_from_u64(1).build_module::<Tiny, f32>();
                    let trainer = Trainer::with_executor(model, config(), Box::new(executor));
                    let mut trainer = trainer.unwrap();
                    // `with_executor` writes the model's weights.
                    load(trainer.executor_mut(), &random::state(&Tiny::PLAN, 3));
                    trainer.predict(*images).unwrap()
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.collect()
    })
}

#[test]
fn ranks_judge_the_images_of_all_together() {
    let all = Bright::new(30, 8, 0.3, 5);
    let alone = predict(&[&all]).remove(0);
    let ranks = predict(&[&all.part(0), &all.part(1)]);
    for (evaluation, predictions) in &ranks {
        assert_eq!(predictions.images(), 30);
        assert_eq!(evaluation.known, alone.0.known);
        assert_eq!(evaluation.right, alone.0.right);
        let (found, expected) = (predictions.scores(), alone.1.scores());
        for (found, expected) in found.classes.iter().zip(&expected.classes) {
            assert_eq!(found.known, expected.known);
            assert_eq!(found.positive, expected.positive);
            let [found, expected] = [found, expected].map(|class| class.auroc.unwrap());
            assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        }
        assert!((evaluation.loss - alone.0.loss).abs() < 1e-6);
    }
    assert_eq!(ranks[0].1.logits(), ranks[1].1.logits());
}

#[test]
fn a_rank_without_images_has_the_scores_of_the_others() {
    let all = Bright::new(30, 8, 0.3, 5);
    let alone = predict(&[&all]).remove(0);
    let ranks = predict(&[&Bright::new(0, 8, 0.3, 5), &all]);
    for (evaluation, predictions) in &ranks {
        assert_eq!(predictions.logits(), alone.1.logits());
        assert_eq!(evaluation.score(), alone.0.score());
    }
}

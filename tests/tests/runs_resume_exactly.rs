//! A run that resumes from a checkpoint equals the run that never stopped, bit for bit: on the real
//! executor, with dropout, shuffling, augmentation and loader threads.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use densenet_runtime::data::{Dataset, ImageFolder, InMemory, Loader, ShiftAndFlip};
use densenet_runtime::densenet;
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::plan::Precision;
use densenet_runtime::train::{
    Algorithm, CYCLED_MOMENTUM, Config, Decay, Evaluation, Fit, Freeze, Metrics, Observer,
    PartRate, Schedule, StepReport, TrainError, Trainer,
};
use densenet_runtime::weights::State;
use densenet_runtime::{Arena, Batch, Network, Pixels};
use densenet_tests::{executor, random};
use drawn_pictures::PictureSet;

densenet! {
    /// With dropout, so that a step's seed matters.
    Small {
        blocks: [2, 2], k: 4, theta: 0.5, bottleneck, input: [3, 16, 16], classes: 10, dropout: 0.2
    }
}

const EPOCHS: u32 = 2;
/// Of 59 images in batches of 8; the last three images of an epoch's order are left out.
const EPOCH_STEPS: u64 = 7;

/// Images whose class is their brightness, varied as the paper varies CIFAR.
fn in_memory() -> Arc<dyn Dataset> {
    let (images, labels) = random::bright_images(59, 3 * 16 * 16, 10, 12, 5);
    let classes = (0..10).map(|class| class.to_string()).collect();
    let images = InMemory::new([3, 16, 16], images, labels, classes).unwrap();
    let fill = images.mean_colour();
    Arc::new(images.augmented(ShiftAndFlip::paper(fill)).unwrap())
}

/// Pictures in files; a random part of each is shown.
fn folder(folder: &Path) -> Arc<dyn Dataset> {
    let pictures = PictureSet {
        size: 48,
        train: 6,
        val: 1,
        ..PictureSet::default()
    };
    drawn_pictures::make(folder, &pictures).unwrap();
    Arc::new(ImageFolder::open(folder.join("train"), [16, 16]).unwrap())
}

fn config(precision: Precision) -> Config {
    Config {
        epochs: EPOCHS,
        batch: 8,
        accumulation: 2,
        // Falls within the run.
        schedule: Schedule::halves(0.1),
        label_smoothing: 0.1,
        precise_bn: 2,
        seed: 11,
        precision,
        threads: 2,
        ..Config::cifar()
    }
}

/// A trainer on fresh weights.
fn trainer(config: &Config, weights: u64) -> Trainer<Small> {
    let model = Cpu::seed_from_u64(weights).build_module::<Small, f32>();
    Trainer::new(model, config.clone()).unwrap()
}

/// All that must repeat, and the checkpoints, which `fit` writes one over the other.
#[derive(Default)]
struct Record {
    steps: Vec<(u64, u32, u64, u32, usize)>,
    evaluations: Vec<(u64, u64, usize, usize)>,
    /// Where copies of the checkpoints go, and their steps.
    checkpoints: Option<(PathBuf, Vec<u64>)>,
}

impl Observer for Record {
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        let (loss, rate) = (report.loss.to_bits(), report.learning_rate.to_bits());
        let step = (report.step, report.epoch, loss, rate, report.top1);
        self.steps.push(step);
        Ok(())
    }

    fn evaluation(&mut self, found: &Evaluation) -> Result<(), TrainError> {
        let evaluation = (found.step, found.loss.to_bits(), found.top1, found.top5);
        self.evaluations.push(evaluation);
        Ok(())
    }

    fn checkpoint(&mut self, path: &Path, step: u64) -> Result<(), TrainError> {
        if let Some((folder, steps)) = &mut self.checkpoints {
            std::fs::copy(path, copy_of(folder, step)).unwrap();
            steps.push(step);
        }
        Ok(())
    }
}

fn copy_of(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("{step}.safetensors"))
}

/// Trains to the end, or resumes to it.
fn fit(
    trainer: &mut Trainer<Small>,
    images: &Arc<dyn Dataset>,
    (workers, balanced): (usize, bool),
    fit: &Fit,
    observer: &mut dyn Observer,
) {
    let train = Loader::training(images.clone(), 8).unwrap();
    let train = train.seeded(trainer.config().seed).workers(workers);
    let train = if balanced { train.balanced() } else { train };
    let validation = Loader::evaluation(images.clone(), 8).unwrap();
    trainer.fit(&train, &validation, fit, observer).unwrap();
}

/// What is evaluated and what is trained: parameters, running statistics and moments.
fn end(trainer: &mut Trainer<Small>) -> (State, State, Vec<u32>) {
    let state = State::of(trainer.model().unwrap());
    let trained = executor::state(trainer.executor());
    let mut moments = executor::read(trainer.executor(), Arena::Momentum);
    if trainer.config().optimizer != Algorithm::Sgd {
        moments.extend(executor::read(trainer.executor(), Arena::SecondMoments));
    }
    let moments = moments.into_iter().map(f32::to_bits).collect();
    (state, trained, moments)
}

/// Trains with checkpoints in the middle and at the end of epochs, and resumes from each.
fn every_checkpoint_leads_to_the_same_end(images: &Arc<dyn Dataset>, config: Config) {
    all_checkpoints_lead_to_the_same_end(images, false, config);
}

/// The same, with classes that may be balanced.
fn all_checkpoints_lead_to_the_same_end(images: &Arc<dyn Dataset>, balanced: bool, config: Config) {
    let temporary = tempfile::tempdir().unwrap();
    let plan = Fit {
        checkpoint: Some(temporary.path().join("checkpoint.safetensors")),
        checkpoint_every: Some(3),
        ..Fit::default()
    };
    let mut whole = Record {
        checkpoints: Some((temporary.path().to_path_buf(), Vec::new())),
        ..Record::default()
    };
    let mut trainer_of_whole = trainer(&config, 1);
    fit(
        &mut trainer_of_whole,
        images,
        (3, balanced),
        &plan,
        &mut whole,
    );
    let end_of_whole = end(&mut trainer_of_whole);
    assert_eq!(whole.steps.len() as u64, u64::from(EPOCHS) * EPOCH_STEPS);
    assert_eq!(whole.evaluations.len() as u32, EPOCHS);

    let (_, checkpoints) = whole.checkpoints.take().unwrap();
    assert_eq!(checkpoints, [3, 6, 7, 9, 12, 14]);
    for step in checkpoints {
        let path = copy_of(temporary.path(), step);
        // Other weights: all that counts is in the checkpoint.
        let mut resumed = trainer(
            &Config {
                threads: 2,
                ..Config::of_checkpoint(&path).unwrap()
            },
            2,
        );
        resumed.resume(&path).unwrap();
        assert_eq!(resumed.steps(), step);
        let mut rest = Record::default();
        fit(
            &mut resumed,
            images,
            (2, balanced),
            &Fit::default(),
            &mut rest,
        );
        let done = step as usize;
        assert_eq!(rest.steps, whole.steps[done..], "resumed at step {step}");
        let done = (step / EPOCH_STEPS) as usize;
        assert_eq!(
            rest.evaluations,
            whole.evaluations[done..],
            "resumed at step {step}"
        );
        assert!(end(&mut resumed) == end_of_whole, "resumed at step {step}");
        assert_eq!(resumed.best(), trainer_of_whole.best());
    }
}

#[test]
fn a_run_on_images_in_memory_goes_on_from_any_checkpoint() {
    every_checkpoint_leads_to_the_same_end(&in_memory(), config(Precision::F32));
}

#[test]
fn a_run_with_balanced_classes_goes_on_from_any_checkpoint() {
    all_checkpoints_lead_to_the_same_end(&in_memory(), true, config(Precision::F32));
}

#[test]
fn a_run_in_bfloat16_goes_on_from_any_checkpoint() {
    every_checkpoint_leads_to_the_same_end(&in_memory(), config(Precision::Bf16));
}

#[test]
fn a_run_on_pictures_goes_on_from_any_checkpoint() {
    let temporary = tempfile::tempdir().unwrap();
    // 60 pictures make as many steps as 59 images.
    let pictures = folder(&temporary.path().join("pictures"));
    every_checkpoint_leads_to_the_same_end(&pictures, config(Precision::F32));
}

#[test]
fn a_run_by_adamw_whose_first_beta_is_cycled_goes_on_from_any_checkpoint() {
    let mut schedule = Schedule::one_cycle(0.01, 0.5);
    if let Decay::OneCycle { momentum, .. } = &mut schedule.decay {
        *momentum = Some(CYCLED_MOMENTUM);
    }
    let config = Config {
        optimizer: Algorithm::adamw(),
        schedule,
        ..config(Precision::F32)
    };
    every_checkpoint_leads_to_the_same_end(&in_memory(), config);
}

#[test]
fn a_run_with_clipped_gradients_goes_on_from_any_checkpoint() {
    let config = Config {
        clip: Some(0.5),
        ..config(Precision::F32)
    };
    every_checkpoint_leads_to_the_same_end(&in_memory(), config);
}

#[test]
fn a_run_with_an_average_goes_on_from_any_checkpoint() {
    for precise_bn in [0, 2] {
        let config = Config {
            ema: Some(0.8),
            optimizer: Algorithm::adamw(),
            schedule: Schedule::cosine(0.01, 0.5),
            precise_bn,
            ..config(Precision::F32)
        };
        every_checkpoint_leads_to_the_same_end(&in_memory(), config);
    }
}

#[test]
fn a_run_with_frozen_stages_goes_on_from_any_checkpoint() {
    let config = Config {
        freeze: Freeze::until("denseblock2"),
        part_rates: vec![PartRate {
            part: "denseblock2".into(),
            rate: 0.1,
        }],
        no_decay: true,
        ..config(Precision::F32)
    };
    every_checkpoint_leads_to_the_same_end(&in_memory(), config);
}

#[test]
fn a_run_with_frozen_parts_goes_on_from_any_checkpoint() {
    let config = Config {
        freeze: Freeze::parts(["denseblock1.denselayer2", "transition1.norm", "norm5"]),
        ema: Some(0.8),
        optimizer: Algorithm::adamw(),
        schedule: Schedule::cosine(0.01, 0.5),
        ..config(Precision::F32)
    };
    every_checkpoint_leads_to_the_same_end(&in_memory(), config);
}

/// The parameters and running statistics before and after a run, for each tensor; whether it was
/// frozen.
fn frozen_stay(freeze: Freeze, is_frozen: impl Fn(&str) -> bool) {
    let images = in_memory();
    let config = Config {
        freeze,
        ..config(Precision::F32)
    };
    assert!(config.precise_bn > 0);
    let mut trainer = trainer(&config, 1);
    let before = executor::state(trainer.executor());
    fit(
        &mut trainer,
        &images,
        (1, false),
        &Fit::default(),
        &mut Record::default(),
    );
    let after = State::of(trainer.model().unwrap());
    for tensor in Small::PLAN.parameters() {
        let name = &tensor.torchvision;
        let [before, after] = [&before, &after].map(|state| state.of_parameter(&tensor));
        assert_eq!(before == after, is_frozen(name), "{name}");
    }
}

#[test]
fn precise_bn_leaves_the_statistics_of_frozen_stages() {
    frozen_stay(Freeze::until("denseblock2"), |name| {
        ["conv0", "denseblock1", "transition1"]
            .iter()
            .any(|part| name.contains(part))
    });
}

#[test]
fn precise_bn_leaves_the_statistics_of_frozen_parts() {
    let parts = ["conv0", "denseblock1.denselayer2", "denseblock2", "norm5"];
    frozen_stay(Freeze::parts(parts), |name| {
        parts.iter().any(|part| name.contains(part))
    });
}

#[test]
fn frozen_norms_keep_their_statistics() {
    frozen_stay(Freeze::parts(["norms"]), |name| name.contains("norm"));
}

#[test]
fn an_average_is_evaluated_and_saved_and_changes_no_step() {
    let temporary = tempfile::tempdir().unwrap();
    let images = in_memory();
    let best = temporary.path().join("best.safetensors");
    let run = |ema| {
        let config = Config {
            ema,
            precise_bn: 0,
            ..config(Precision::F32)
        };
        let mut trainer = trainer(&config, 1);
        let mut record = Record::default();
        let files = Fit {
            best: Some(best.clone()),
            ..Fit::default()
        };
        fit(&mut trainer, &images, (1, false), &files, &mut record);
        let trained = executor::state(trainer.executor());
        (record, trained, end(&mut trainer).0, trainer)
    };
    let (plain, trained, model, _) = run(None);
    assert_eq!(trained, model);
    let (averaged, same, model, mut trainer) = run(Some(0.8));
    assert_eq!(averaged.steps, plain.steps);
    assert_eq!(same, trained);
    assert_ne!(model.parameters, trained.parameters);
    assert_ne!(model.running, trained.running);
    assert_ne!(averaged.evaluations, plain.evaluations);
    // The model that the trainer gives out is the one that it evaluates.
    let validation = Loader::evaluation(images.clone(), 8).unwrap();
    let evaluation = trainer.evaluate(&validation).unwrap();
    let model = trainer.into_model().unwrap();
    let plain = Config {
        precise_bn: 0,
        ..config(Precision::F32)
    };
    let mut alone = Trainer::new(model, plain.clone()).unwrap();
    let again = alone.evaluate(&validation).unwrap();
    assert_eq!(again.loss.to_bits(), evaluation.loss.to_bits());
    // The file of the best has the weights that were the best.
    let (step, loss, ..) = *averaged
        .evaluations
        .iter()
        .min_by_key(|(_, _, top1, _)| std::cmp::Reverse(*top1))
        .unwrap();
    let mut saved = Cpu::seed_from_u64(3).build_module::<Small, f32>();
    let weights = State::read(&Small::PLAN, &best).unwrap();
    weights.store_into(&mut saved).unwrap();
    let mut saved = Trainer::new(saved, plain).unwrap();
    let found = saved.evaluate(&validation).unwrap();
    assert_eq!(found.loss.to_bits(), loss, "the best is of step {step}");
}

#[test]
fn the_same_seeds_and_threads_give_the_same_run_and_other_seeds_another() {
    let images = in_memory();
    let run = |seed, workers| {
        let config = Config {
            seed,
            ..config(Precision::F32)
        };
        let mut trainer = trainer(&config, 1);
        let mut record = Record::default();
        fit(
            &mut trainer,
            &images,
            (workers, false),
            &Fit::default(),
            &mut record,
        );
        (record.steps, record.evaluations, end(&mut trainer))
    };
    let once = run(1, 1);
    // The threads that load are not those that compute: their number changes nothing.
    assert!(once == run(1, 1) && once == run(1, 4));
    assert!(once.0 != run(2, 1).0);
}

#[test]
fn the_metrics_of_a_resumed_run_are_those_of_a_whole_one() {
    let temporary = tempfile::tempdir().unwrap();
    let images = in_memory();
    let config = config(Precision::F32);
    let metrics = temporary.path().join("metrics.jsonl");
    // Without what the clock says.
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&metrics).unwrap();
        let mut lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        for line in &mut lines {
            line.as_object_mut().unwrap().remove("images_per_s");
        }
        lines
    };
    let plan = Fit {
        checkpoint: Some(temporary.path().join("checkpoint.safetensors")),
        checkpoint_every: Some(4),
        ..Fit::default()
    };
    let record = Record {
        checkpoints: Some((temporary.path().to_path_buf(), Vec::new())),
        ..Record::default()
    };
    let mut observers: Vec<Box<dyn Observer>> = vec![
        Box::new(Metrics::create(&metrics, 0).unwrap()),
        Box::new(record),
    ];
    fit(
        &mut trainer(&config, 1),
        &images,
        (1, false),
        &plan,
        &mut observers,
    );
    let expected = lines();
    assert_eq!(expected.len() as u64, u64::from(EPOCHS) * (EPOCH_STEPS + 1));

    // The file holds lines of steps after the checkpoint, as after a crash.
    let mut resumed = trainer(&config, 2);
    resumed.resume(copy_of(temporary.path(), 8)).unwrap();
    let mut again = Metrics::create(&metrics, resumed.steps()).unwrap();
    fit(
        &mut resumed,
        &images,
        (1, false),
        &Fit::default(),
        &mut again,
    );
    assert_eq!(lines(), expected);
}

/// Names the checkpoint to a process that may not write files of its size.
const CHECKPOINT: &str = "DENSENET_TEST_CHECKPOINT";

/// Resumes from the checkpoint and writes it again, in a process whose files are limited to a few
/// KB: the nearest thing to a full disk without being root. Without `signal` the process is killed
/// at the limit.
#[cfg(unix)]
fn write_on_a_full_disk(checkpoint: &Path, signal: &str) -> Output {
    let script = format!("{signal} ulimit -f 8; exec \"$0\" --ignored --exact writer --nocapture");
    let test = std::env::current_exe().unwrap();
    Command::new("sh")
        .args([Path::new("-c"), Path::new(&script), &test])
        .env(CHECKPOINT, checkpoint)
        .output()
        .unwrap()
}

#[test]
#[ignore = "runs in a process of its own, for the test below"]
fn writer() {
    let checkpoint = std::env::var_os(CHECKPOINT).unwrap();
    let mut trainer = trainer(&config(Precision::F32), 2);
    trainer.resume(&checkpoint).unwrap();
    let (pixels, labels) = (vec![0.5; 8 * 3 * 16 * 16], [3; 8]);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    trainer.step(batch).unwrap();
    match trainer.save(&checkpoint) {
        Ok(()) => println!("written"),
        Err(error) => println!("error: {error}"),
    }
}

#[cfg(unix)]
#[test]
fn a_checkpoint_that_a_full_disk_cuts_off_leaves_the_one_before_whole() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("checkpoint.safetensors");
    let mut first = trainer(&config(Precision::F32), 1);
    first.save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(before.len() > 8 * 1024);

    // The write fails.
    let output = write_on_a_full_disk(&path, "trap '' XFSZ;");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let expected = format!("error: cannot write {}: ", path.display());
    assert!(said.contains(&expected), "{said}");
    assert!(
        said.contains("the old file, if any, is unchanged; free some space"),
        "{said}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let files: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");

    // The process dies in the middle of the write.
    let output = write_on_a_full_disk(&path, "");
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);

    // And a run can be resumed from it.
    let mut resumed = trainer(&config(Precision::F32), 2);
    resumed.resume(&path).unwrap();
    assert!(end(&mut resumed) == end(&mut first));
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_trainer_stays_as_it_is() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("checkpoint.safetensors");
    trainer(&config(Precision::F32), 1).save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();

    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 0x40;
    let damages = [
        ("cut off", &whole[..whole.len() / 2], "is damaged"),
        ("a flipped bit", &flipped[..], "use an older copy"),
    ];
    for (damage, bytes, words) in damages {
        std::fs::write(&path, bytes).unwrap();
        let mut trainer = trainer(&config(Precision::F32), 2);
        let before = end(&mut trainer);
        let error = trainer.resume(&path).unwrap_err().to_string();
        assert!(
            error.contains("checkpoint.safetensors"),
            "{damage}: {error}"
        );
        assert!(error.contains(words), "{damage}: {error}");
        assert!(end(&mut trainer) == before, "{damage}");
    }
}

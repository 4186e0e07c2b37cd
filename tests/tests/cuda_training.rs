//! Training on the CUDA executor (on an emulated device) matches training on the CPU: losses follow
//! those of the CPU, a run moves from one to the other by its checkpoint, and failures leave the
//! last checkpoint intact.

use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use densenet_runtime::cuda::{self, Placement};
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::plan::{Precision, Recompute};
use densenet_runtime::train::{
    Batches, Config, Fit, Observer, Schedule, StepReport, TrainError, Trainer,
};
use densenet_runtime::{Batch, Network, Pixels, densenet};
use densenet_tests::emulated::{alone, device, device_that_is_emulated, on_cuda, options};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

densenet! {
    /// Tells four shapes apart.
    Shapes {
        blocks: [2, 2],
        k: 4,
        theta: 0.5,
        bottleneck,
        dropout: 0.1,
        stem: cifar,
        init: 8,
        input: [3, 9, 9],
        classes: 4,
    }
}

const SIDE: usize = 9;
const BATCH: usize = 16;

/// Drawn pictures of bars, a diagonal and a disc, somewhere, in some colour.
struct Pictures {
    bytes: Vec<u8>,
    labels: Vec<u32>,
}

impl Pictures {
    fn new(count: usize, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut bytes, mut labels) = (Vec::new(), Vec::new());
        for image in 0..count {
            let label = image % 4;
            let (top, left) = (rng.gen_range(2..SIDE - 2), rng.gen_range(2..SIDE - 2));
            let colour: [u8; 3] = rng.r#gen();
            for (y, x) in (0..SIDE * SIDE).map(|i| (i / SIDE, i % SIDE)) {
                let inside = match label {
                    0 => y.abs_diff(top) < 2,
                    1 => x.abs_diff(left) < 2,
                    2 => (y + left).abs_diff(x + top) < 2,
                    _ => y.abs_diff(top).pow(2) + x.abs_diff(left).pow(2) < 7,
                };
                for colour in colour {
                    let noise = rng.gen_range(0..60);
                    bytes.push(if inside { 110 + colour / 4 } else { 30 } + noise);
                }
            }
            labels.push(label as u32);
        }
        Self { bytes, labels }
    }
}

impl Batches for Pictures {
    fn batches(&self) -> u64 {
        self.labels.len().div_ceil(BATCH) as u64
    }

    fn visit(
        &self,
        epoch: u32,
        first: u64,
        each: &mut dyn FnMut(Batch<'_>, usize) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (count, size) = (self.labels.len(), 3 * SIDE * SIDE);
        let order: Vec<_> = (0..count)
            .map(|i| (i * 37 + epoch as usize * 5) % count)
            .collect();
        for images in order.chunks(BATCH).skip(first as usize) {
            let labels: Vec<u32> = images.iter().map(|&image| self.labels[image]).collect();
            let bytes: Vec<u8> = images
                .iter()
                .flat_map(|&image| &self.bytes[image * size..][..size])
                .copied()
                .collect();
            let pixels = Pixels::Nhwc {
                bytes: &bytes,
                mean: &[0.3, 0.3, 0.3],
                std: &[0.2, 0.25, 0.3],
            };
            let batch = Batch::of_classes(pixels, &labels);
            if each(batch, 1).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Remembers losses; may do something after a step, or once its checkpoint is written.
#[derive(Default)]
struct Losses<'a> {
    of: Vec<f64>,
    after: Option<Box<dyn FnMut(u64) + 'a>>,
    after_checkpoint: Option<Box<dyn FnMut(u64) + 'a>>,
}

impl Observer for Losses<'_> {
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        self.of.push(report.loss);
        if let Some(after) = &mut self.after {
            after(report.step);
        }
        Ok(())
    }

    fn checkpoint(&mut self, _: &Path, step: u64) -> Result<(), TrainError> {
        if let Some(after) = &mut self.after_checkpoint {
            after(step);
        }
        Ok(())
    }
}

fn config(precision: Precision) -> Config {
    Config {
        epochs: 2,
        batch: BATCH,
        schedule: Schedule::halves(0.1),
        seed: 3,
        precision,
        threads: 1,
        ..Config::cifar()
    }
}

fn model() -> Shapes {
    Cpu::seed_from_u64(5).build_module::<Shapes, f32>()
}

fn on_the_cpu(config: Config) -> Trainer<Shapes> {
    Trainer::new(model(), config).unwrap()
}

/// As [`Trainer::on`] makes it, with compiled kernels in a folder of the tests.
fn on_the_device(config: Config) -> Trainer<Shapes> {
    let (_, device) = device();
    let options = cuda::CudaOptions {
        precision: config.precision,
        recompute: config.recompute,
        ..options(config.piece())
    };
    let executor = on_cuda(&device, &Shapes::PLAN, options);
    Trainer::with_executor(model(), config, Box::new(executor)).unwrap()
}

/// 256 pictures to train on, 48 to evaluate.
fn fit(
    trainer: &mut Trainer<Shapes>,
    fit: &Fit,
    observer: &mut dyn Observer,
) -> Result<f64, TrainError> {
    let summary = trainer.fit(&Pictures::new(256, 1), &Pictures::new(48, 2), fit, observer)?;
    Ok(summary
        .evaluation
        .map_or(1.0, |evaluation| evaluation.top1_error()))
}

/// Losses of all steps, and the last top-1 error.
fn run(mut trainer: Trainer<Shapes>) -> (Vec<f64>, f64) {
    let mut losses = Losses::default();
    let error = fit(&mut trainer, &Fit::default(), &mut losses).unwrap();
    (losses.of, error)
}

/// Up to a step, from a checkpoint if there is one; leaves one. Losses of its steps.
fn part(mut trainer: Trainer<Shapes>, checkpoint: &Path, last: u64) -> Vec<f64> {
    if checkpoint.exists() {
        trainer.resume(checkpoint).unwrap();
    }
    let settings = Fit {
        steps: Some(last),
        checkpoint: Some(checkpoint.into()),
        ..Fit::default()
    };
    let mut losses = Losses::default();
    fit(&mut trainer, &settings, &mut losses).unwrap();
    losses.of
}

/// A checkpoint every three steps.
fn with_checkpoints(path: &Path) -> Fit {
    Fit {
        checkpoint: Some(path.into()),
        checkpoint_every: Some(3),
        ..Fit::default()
    }
}

/// The checkpoint is the only file of its folder, and has not changed.
fn assert_alone_and_whole(path: &Path, whole: &[u8]) {
    assert!(fs::read(path).unwrap() == whole, "it was touched");
    let files = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(files, 1, "half a checkpoint was left");
}

/// The largest difference of two rows of losses.
fn apart(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn losses_follow_the_cpus() {
    let _alone = alone();
    let (expected, error) = run(on_the_cpu(config(Precision::F32)));
    assert_eq!(expected.len(), 32);
    // There is something to follow: the network learns.
    let ends = [&expected[..8], &expected[24..]].map(|losses| losses.iter().sum::<f64>() / 8.0);
    assert!(
        ends[1] < 0.6 * ends[0] && error < 0.4,
        "{ends:?}, error {error}"
    );
    for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::Bf16, 0.05)] {
        let (found, error_there) = run(on_the_device(config(precision)));
        let off = apart(&found, &expected);
        println!("{precision:?}: {off:.1e} at most; errors {error_there} and {error}; {found:.3?}");
        assert!(
            off < tolerance,
            "{precision:?}: {off}\n{found:?}\n{expected:?}"
        );
        assert!(
            (error_there - error).abs() < 0.1,
            "{precision:?}: {error_there}, not {error}"
        );
    }
}

#[test]
fn a_run_moves_between_the_executors_by_its_checkpoint() {
    let _alone = alone();
    let config = || config(Precision::F32);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf { folder.path().join(name) };
    // Into the second epoch, with a change in the middle of the first.
    let expected = part(on_the_cpu(config()), &file("cpu"), 18);
    let alone = part(on_the_device(config()), &file("device"), 18);
    for (name, first_on_cpu) in [("there", true), ("back", false)] {
        let path = file(name);
        let trainer = |on_cpu: bool| {
            if on_cpu {
                on_the_cpu(config())
            } else {
                on_the_device(config())
            }
        };
        let mut found = part(trainer(first_on_cpu), &path, 7);
        found.extend(part(trainer(!first_on_cpu), &path, 18));
        assert!(
            apart(&found, &expected) < 1e-3,
            "{name}: {found:?}\n{expected:?}"
        );
    }
    // On one device it resumes bit for bit.
    let mut found = part(on_the_device(config()), &file("again"), 7);
    found.extend(part(on_the_device(config()), &file("again"), 18));
    assert_eq!(found, alone);
}

#[test]
fn a_device_that_fails_leaves_the_last_checkpoint_whole() {
    let _alone = alone();
    let Some((emulator, _)) = device_that_is_emulated() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let settings = with_checkpoints(&path);
    let mut trainer = on_the_device(config(Precision::F32));
    let mut losses = Losses {
        // Somewhere in the seventh step, one after a checkpoint.
        after_checkpoint: Some(Box::new(|step| {
            if step == 6 {
                emulator.fail_launch(40)
            }
        })),
        ..Losses::default()
    };
    let failed = fit(&mut trainer, &settings, &mut losses);
    let whole = fs::read(&path).unwrap();
    let saved = trainer.save(&path);
    emulator.recover();
    let error = failed.expect_err("an error").to_string();
    assert!(error.contains("unspecified launch failure"), "{error}");
    assert!(error.contains("resume the last checkpoint"), "{error}");
    assert!(saved.is_err(), "a lost device gives nothing to save");
    assert_alone_and_whole(&path, &whole);
    assert_eq!(losses.of.len(), 6);
    drop(trainer);
    // The remedy in the error works, here and elsewhere.
    let expected = part(
        on_the_cpu(config(Precision::F32)),
        &folder.path().join("cpu"),
        12,
    );
    for trainer in [
        on_the_device(config(Precision::F32)),
        on_the_cpu(config(Precision::F32)),
    ] {
        let copy = folder.path().join("copy");
        fs::copy(&path, &copy).unwrap();
        let found = part(trainer, &copy, 12);
        assert_eq!(found.len(), 6, "from step 7 on");
        assert!(
            apart(&found, &expected[6..]) < 1e-3,
            "{found:?}\n{expected:?}"
        );
    }
}

#[test]
fn a_device_that_runs_out_of_memory_leaves_the_last_checkpoint_whole() {
    let _alone = alone();
    let Some((emulator, _)) = device_that_is_emulated() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let settings = with_checkpoints(&path);
    let mut trainer = on_the_device(config(Precision::F32));
    let mut whole = Vec::new();
    let (found, failed) = {
        let mut losses = Losses {
            // After the first epoch's last step, one after a checkpoint: there is no memory for the
            // graph of the evaluation.
            after: Some(Box::new(|step| {
                if step == 16 {
                    whole = fs::read(&path).unwrap();
                    emulator.set_memory(emulator.memory_used());
                }
            })),
            ..Losses::default()
        };
        let failed = fit(&mut trainer, &settings, &mut losses);
        (losses.of, failed)
    };
    emulator.set_memory(1 << 30);
    let error = failed.expect_err("an error").to_string();
    assert!(error.contains("out of memory"), "{error}");
    assert_eq!(found.len(), 16);
    assert_alone_and_whole(&path, &whole);
    drop(trainer);
    // From step 16 on it equals a run that had memory, bit for bit.
    let other = folder.path().join("other");
    let expected = part(on_the_device(config(Precision::F32)), &other, 18);
    let resumed = part(on_the_device(config(Precision::F32)), &path, 18);
    assert_eq!(resumed, expected[15..]);
    assert_eq!(found, expected[..16]);
}

#[test]
fn too_little_memory_says_what_to_do_and_doing_it_works() {
    let _alone = alone();
    let Some((emulator, device)) = device_that_is_emulated() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    part(on_the_device(config(Precision::F32)), &path, 2);
    let options = |recompute| cuda::CudaOptions {
        recompute,
        placement: Placement::Together,
        ..options(BATCH)
    };
    let enough = options(Recompute::Bottlenecks).bytes(&Shapes::PLAN);
    assert!(enough < options(Recompute::Nothing).bytes(&Shapes::PLAN));
    emulator.set_memory(emulator.memory_used() + enough);
    let refused = cuda::CudaExecutor::new(&device, Shapes::PLAN, options(Recompute::Nothing));
    let granted = cuda::CudaExecutor::new(&device, Shapes::PLAN, options(Recompute::Bottlenecks));
    emulator.set_memory(1 << 30);
    let error = refused.err().expect("an error").to_string();
    assert!(
        error.contains("no memory for") && error.contains("recompute"),
        "{error}"
    );
    let executor = granted.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(executor.bytes(), enough);
    let recomputed = Config {
        recompute: Recompute::Bottlenecks,
        ..config(Precision::F32)
    };
    let trainer = Trainer::with_executor(model(), recomputed, Box::new(executor)).unwrap();
    let found = part(trainer, &path, 4);
    let expected = part(
        on_the_cpu(config(Precision::F32)),
        &folder.path().join("cpu"),
        4,
    );
    assert!(
        apart(&found, &expected[2..]) < 1e-3,
        "{found:?}\n{expected:?}"
    );
}

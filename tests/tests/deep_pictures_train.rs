//! Pictures of 16 bits reach a grey network with all their bits, on both devices, augmented and mixed;
//! and such a run resumes in the middle of an epoch as if it had never stopped.

use std::path::Path;
use std::sync::Arc;

use densenet_runtime::cuda;
use densenet_runtime::data::{
    Augmentation, DataError, Dataset, Depth, ImageFolder, Jitter, Loader, Mix, Pictures, Policy,
    SampleRange,
};
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::train::{Config, Fit, Observer, Schedule, StepReport, TrainError, Trainer};
use densenet_runtime::{Network, densenet};
use densenet_tests::emulated::{alone, device, on_cuda, options};
use tempfile::TempDir;

densenet! {
    Grey {
        blocks: [1, 1], k: 4, theta: 0.5, bottleneck, init: 8, input: [1, 8, 8], classes: 3
    }
}

const BATCH: usize = 6;
/// Of 24 pictures.
const EPOCH_STEPS: u64 = 4;

/// Pictures whose upper bytes are all the same: only the lower ones tell the classes apart.
fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    for (class, name) in ["dark", "grey", "light"].iter().enumerate() {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        for picture in 0..8 {
            let mut file = b"P5 12 12 65535 ".to_vec();
            for pixel in 0..144 {
                let grain = (pixel * pixel + 31 * picture) % 40;
                let sample = 0x4000 + 90 * class as u16 + grain;
                file.extend(sample.to_be_bytes());
            }
            std::fs::write(dir.path().join(format!("{name}/{picture}.pgm")), file).unwrap();
        }
    }
    dir
}

/// The pictures, with the range in which they differ.
fn pictures(dir: &TempDir, augmentation: Augmentation) -> Result<ImageFolder, DataError> {
    let range = SampleRange {
        low: 16_384.0,
        high: 16_639.0,
    };
    let pictures = Pictures::shaped([1, 8, 8])?.ranged(range)?;
    let folder = ImageFolder::open_as(dir, pictures.augmented(augmentation)?)?;
    assert_eq!(folder.depth(), Depth::Floats);
    Ok(folder)
}

fn varied() -> Augmentation {
    Augmentation {
        rotation: 10.0,
        jitter: Jitter {
            brightness: 0.1,
            contrast: 0.1,
            ..Jitter::default()
        },
        policy: Policy::TrivialWide,
        erase: 0.3,
        ..Augmentation::default()
    }
}

fn config() -> Config {
    Config {
        epochs: 10,
        batch: BATCH,
        schedule: Schedule::halves(0.05),
        seed: 3,
        threads: 1,
        ..Config::cifar()
    }
}

fn trainer() -> Trainer<Grey> {
    let model = Cpu::seed_from_u64(5).build_module::<Grey, f32>();
    Trainer::new(model, config()).unwrap()
}

#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        self.0.push(report.loss);
        Ok(())
    }
}

/// The losses of the steps, and the last share of errors.
fn run(
    mut trainer: Trainer<Grey>,
    folder: ImageFolder,
    mix: Mix,
    steps: u64,
    checkpoint: Option<&Path>,
) -> (Vec<f64>, Option<f64>) {
    if let Some(checkpoint) = checkpoint.filter(|path| path.exists()) {
        trainer.resume(checkpoint).unwrap();
    }
    let folder: Arc<dyn Dataset> = Arc::new(folder);
    let train = Loader::training(folder.clone(), BATCH).unwrap();
    let train = train.seeded(3).workers(2).mixed(mix, 3).unwrap();
    let val = Loader::evaluation(folder, BATCH).unwrap();
    let fit = Fit {
        steps: Some(steps),
        checkpoint: checkpoint.map(Into::into),
        ..Fit::default()
    };
    let mut losses = Losses::default();
    let summary = trainer.fit(&train, &val, &fit, &mut losses).unwrap();
    let error = summary.evaluation.map(|evaluation| evaluation.top1_error());
    (losses.0, error)
}

#[test]
fn a_grey_network_learns_what_only_the_lower_8_bits_tell() {
    let dir = folder();
    let folder = pictures(&dir, Augmentation::default()).unwrap();
    let (losses, error) = run(trainer(), folder, Mix::default(), 10 * EPOCH_STEPS, None);
    assert_eq!(losses.len() as u64, 10 * EPOCH_STEPS);
    assert_eq!(error, Some(0.0), "{losses:?}");
}

#[test]
fn mixed_and_augmented_batches_train_on_cuda_as_on_the_cpu() {
    let _alone = alone();
    let dir = folder();
    let mix = Mix {
        mixup: 0.4,
        cutmix: 1.0,
    };
    let folder = || pictures(&dir, varied()).unwrap();
    let (expected, _) = run(trainer(), folder(), mix, 6, None);
    let (_, device) = device();
    let model = Cpu::seed_from_u64(5).build_module::<Grey, f32>();
    let options = cuda::CudaOptions {
        recompute: config().recompute,
        ..options(BATCH)
    };
    let executor = on_cuda(&device, &Grey::PLAN, options);
    let on_device = Trainer::with_executor(model, config(), Box::new(executor)).unwrap();
    let (found, _) = run(on_device, folder(), mix, 6, None);
    assert_eq!(found.len(), 6);
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-3, "{found}, {expected}");
    }
}

#[test]
fn a_mixed_and_augmented_run_goes_on_in_the_middle_of_an_epoch_bit_for_bit() {
    let dir = folder();
    let files = TempDir::new().unwrap();
    let checkpoint = files.path().join("checkpoint.safetensors");
    for mix in [
        Mix {
            mixup: 0.4,
            cutmix: 1.0,
        },
        Mix {
            mixup: 0.0,
            cutmix: 1.0,
        },
    ] {
        let folder = || pictures(&dir, varied()).unwrap();
        let (whole, _) = run(trainer(), folder(), mix, 11, None);
        let (first, _) = run(trainer(), folder(), mix, EPOCH_STEPS + 2, Some(&checkpoint));
        let (rest, _) = run(trainer(), folder(), mix, 11, Some(&checkpoint));
        assert_eq!(first.len(), 6);
        assert!([first, rest].concat() == whole);
        std::fs::remove_file(&checkpoint).unwrap();
    }
}

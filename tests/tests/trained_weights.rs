//! The networks whose trained weights are in the repository have their recorded mistakes on
//! Fashion-MNIST's test images, whatever computes them.
//!
//! 10,000 images are 2.2e12 multiply-adds. So all of them are computed once in f32 and once in bf16,
//! with the best instructions that the machine has. Other instructions compute those whose class is
//! closest to another; the others' classes stay, for their logits are further apart than instructions
//! differ.
//! `--ignored` computes all images in each way, and a hundred on the emulated device, which takes
//! some minutes; a card has its hundred without.

use std::path::PathBuf;
use std::sync::Arc;

use densenet_models::{ClothesBc, clothes_logits, clothes_weights, mistakes};
use densenet_runtime::Network as _;
use densenet_runtime::cpu::{FrozenOptions, Level};
use densenet_runtime::data::{Dataset, InMemory, Loader, Subset, idx};
use densenet_runtime::plan::Precision;
use densenet_tests::emulated::{alone, device, frozen_on_cuda, frozen_options, root};

/// Weights that were trained here.
#[derive(Clone, Copy)]
struct Trained {
    /// The file's name.
    name: &'static str,
    /// How many of 10,000 images are misclassified, in f32.
    mistakes: usize,
}

const ON_A_CARD: Trained = Trained {
    name: "clothes_bc",
    mistakes: 448,
};

const ON_TWO_CORES: Trained = Trained {
    name: "clothes_bc_two_cores",
    mistakes: 496,
};

/// In bf16 there are this many mistakes more or less at most: 0.1 points.
const IN_BF16: usize = 10;

const LEVELS: [Level; 3] = [Level::Baseline, Level::Avx2, Level::Avx512];

impl Trained {
    /// Where they are. (A test may run where it was not built.)
    fn file(self) -> PathBuf {
        root().join(format!("models/weights/{}.safetensors", self.name))
    }

    /// The logits of images.
    fn logits(self, images: Arc<dyn Dataset>, options: FrozenOptions) -> Vec<f32> {
        clothes_logits(self.file(), images, options).unwrap()
    }
}

/// The test images.
fn images() -> Arc<InMemory> {
    let folder = root().join("tests/data/fashion-mnist");
    let (_, test) = idx::train_and_test(folder, &idx::FASHION).unwrap();
    Arc::new(test)
}

/// What computes images by the hundred.
fn at(level: Level, precision: Precision) -> FrozenOptions {
    FrozenOptions {
        level,
        precision,
        ..FrozenOptions::for_batch(100)
    }
}

/// How far the highest logit of an image is above the next one.
fn margin(logits: &[f32]) -> f32 {
    let mut sorted = logits.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted[9] - sorted[8]
}

/// The largest difference.
fn apart(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    let differences = one.iter().zip(other).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// The recorded mistakes are made at every level, and nearly in bf16.
fn makes_its_mistakes(trained: Trained) {
    let test = images();
    let options = FrozenOptions::for_batch(100);
    let all = trained.logits(test.clone(), options);
    let found = mistakes(&all, &*test);
    assert_eq!(found, trained.mistakes, "{:?}", options.level);

    let of = |image: usize| &all[10 * image..][..10];
    let mut order: Vec<usize> = (0..test.len()).collect();
    order.sort_by(|&a, &b| margin(of(a)).total_cmp(&margin(of(b))));
    // The mistakes among the closest images, and those of before; how much logits differ, as a share of
    // the margin of those that are not computed.
    let closest = |count: usize, options: FrozenOptions| {
        let part = Arc::new(Subset::new(test.clone(), order[..count].to_vec()).unwrap());
        let before: Vec<f32> = order[..count]
            .iter()
            .flat_map(|&at| of(at))
            .copied()
            .collect();
        let found = trained.logits(part.clone(), options);
        let difference = apart(&found, &before);
        let [found, before] = [&found, &before].map(|logits| mistakes(logits, &*part));
        (found, before, difference / margin(of(order[count])))
    };
    for level in LEVELS {
        let (found, before, difference) = closest(200, at(level, Precision::F32));
        assert_eq!(found, before, "{level:?}");
        assert!(difference < 0.02, "{level:?}: {difference}");
    }
    let options = at(options.level, Precision::Bf16);
    let found = mistakes(&trained.logits(test.clone(), options), &*test);
    assert!(
        found.abs_diff(trained.mistakes) <= IN_BF16,
        "{found} in bf16"
    );
}

#[test]
fn the_network_of_a_card_makes_its_recorded_mistakes() {
    makes_its_mistakes(ON_A_CARD);
}

#[test]
fn the_network_of_two_cores_makes_its_recorded_mistakes() {
    makes_its_mistakes(ON_TWO_CORES);
}

#[test]
#[ignore = "takes minutes"]
fn the_recorded_mistakes_are_made_at_every_level_by_all_images() {
    let test = images();
    for trained in [ON_A_CARD, ON_TWO_CORES] {
        for precision in [Precision::F32, Precision::Bf16] {
            let tolerance = match precision {
                Precision::F32 => 0,
                Precision::Bf16 => IN_BF16,
            };
            for level in LEVELS {
                let logits = trained.logits(test.clone(), at(level, precision));
                let found = mistakes(&logits, &*test);
                println!("{} {level:?} {precision:?}: {found}", trained.name);
                let difference = found.abs_diff(trained.mistakes);
                assert!(difference <= tolerance, "{level:?}: {found}");
            }
        }
    }
}

/// The logits of the first images on a device are the CPU's.
fn a_device_has_the_logits_of_the_cpu(images_if_emulated: usize) {
    let _alone = alone();
    let (emulator, device) = device();
    let count = if emulator.is_card() {
        100
    } else {
        images_if_emulated
    };
    let test = Arc::new(InMemory::clone(&images()).split(count).0);
    let expected = ON_A_CARD.logits(test.clone(), FrozenOptions::for_batch(count));
    let (state, normalization) = clothes_weights(ON_A_CARD.file(), test.normalization()).unwrap();
    let batch = Loader::evaluation(test, count).unwrap().epoch(0).next();
    let batch = batch.unwrap().unwrap();
    let pixels = batch.as_batch(&normalization).pixels;
    let mut frozen = frozen_on_cuda(&device, &ClothesBc::PLAN, &state, frozen_options(count));
    let difference = apart(frozen.infer(pixels, count).unwrap(), &expected);
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn a_device_has_the_logits_of_the_cpu_for_the_first_images() {
    a_device_has_the_logits_of_the_cpu(20);
}

#[test]
#[ignore = "takes minutes"]
fn an_emulated_device_has_the_logits_of_the_cpu_for_a_hundred_images() {
    a_device_has_the_logits_of_the_cpu(100);
}

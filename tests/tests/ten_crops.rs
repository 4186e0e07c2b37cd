//! Evaluation on one crop and on ten (paper, Table 3) through the `Trainer`, against the views of
//! each picture put through the executor by hand.

use std::path::Path;
use std::sync::Arc;

use densenet_runtime::data::{Crops, Dataset, ImageFolder, Loader};
use densenet_runtime::densenet;
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::train::{Config, Trainer};
use densenet_runtime::{Batch, Network, Pixels};
use densenet_tests::random;
use drawn_pictures::PictureSet;

densenet! {
    Small { blocks: [2, 2], k: 8, theta: 0.5, bottleneck, input: [3, 24, 24], classes: 10 }
}

/// Mean loss, and how many pictures have their class on top and among the five best.
fn by_hand(trainer: &mut Trainer<Small>, pictures: &ImageFolder) -> (f64, usize, usize) {
    let (views, image) = (pictures.views(), 3 * 24 * 24);
    let normalization = pictures.normalization().clone();
    let (mut loss, mut top1, mut top5) = (0.0, 0, 0);
    for index in 0..pictures.len() {
        let mut bytes = vec![0; views * image];
        pictures.load(index, None, &mut bytes).unwrap();
        let label = pictures.target(index).class().unwrap();
        let mut mean = [0.0_f64; 10];
        for view in bytes.chunks_exact(image) {
            let labels = [label];
            let batch = Batch::of_classes(
                Pixels::Nhwc {
                    bytes: view,
                    mean: &normalization.mean,
                    std: &normalization.std,
                },
                &labels,
            );
            let executor = trainer.executor_mut();
            executor.evaluate(batch).unwrap();
            let mut logits = [0.0; 10];
            executor.logits(&mut logits).unwrap();
            for (mean, logit) in mean.iter_mut().zip(logits) {
                *mean += f64::from(logit) / views as f64;
            }
        }
        let own = mean[label as usize];
        let sum: f64 = mean.iter().map(|logit| logit.exp()).sum();
        loss += (sum.ln() - own) / pictures.len() as f64;
        let better = mean.iter().filter(|&&logit| logit > own).count();
        top1 += usize::from(better == 0);
        top5 += usize::from(better < 5);
    }
    (loss, top1, top5)
}

fn evaluated(dir: &Path, shown: Crops) -> (f64, usize, usize) {
    // Of sizes that no batch and no piece of one divides.
    let config = Config {
        batch: 7,
        ..Config::imagenet()
    };
    let mut model = Cpu::default().build_module::<Small, f32>();
    let state = random::state(&Small::PLAN, 5);
    state.store_into(&mut model).unwrap();
    let mut trainer = Trainer::new(model, config).unwrap();
    let pictures = ImageFolder::open(dir, [24, 24]).unwrap().evaluated(shown);
    let expected = by_hand(&mut trainer, &pictures);
    let loader = Loader::evaluation(Arc::new(pictures), 4).unwrap();
    let found = trainer.evaluate(&loader).unwrap();
    assert_eq!(found.images, 30);
    assert_eq!((found.top1, found.top5), (expected.1, expected.2));
    let difference = (found.loss - expected.0).abs() / expected.0;
    assert!(difference < 1e-5, "{found:?} {expected:?}");
    expected
}

#[test]
fn one_crop_and_ten_crops_are_judged_as_the_mean_of_their_logits() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("pictures");
    let pictures = PictureSet {
        size: 48,
        train: 1,
        val: 3,
        ..PictureSet::default()
    };
    drawn_pictures::make(&dir, &pictures).unwrap();
    let [one, ten] = [Crops::Centre, Crops::Ten].map(|shown| evaluated(&dir.join("val"), shown));
    assert!((one.0 - ten.0).abs() > 1e-3, "ten crops are not the centre");
}

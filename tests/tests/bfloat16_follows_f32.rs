//! With products of bfloat16 a network computes the same as in f32, except for the rounding of
//! operands, and it rounds in the same way with each instruction set.

use densenet_runtime::cpu::{Level, Precision};
use densenet_runtime::{Arena, Batch, Executor, Pixels, Step, cpu};
use densenet_tests::compare::{difference, distance};
use densenet_tests::each_network;
use densenet_tests::executor::{load, logits, read};
use densenet_tests::golden::Golden;
use densenet_tests::networks::Case;

/// Logits and gradients of a training pass.
fn pass<N: Case>(precision: Precision, level: Level, threads: usize) -> [Vec<f32>; 2] {
    let golden = Golden::open(N::GOLDEN, &N::PLAN);
    let (images, labels) = (golden.images(), golden.labels());
    let batch = Batch::of_classes(Pixels::Nchw(&images), &labels);
    let options = cpu::CpuOptions {
        precision,
        threads,
        level,
        ..cpu::CpuOptions::for_batch(labels.len())
    };
    let mut executor = cpu::CpuExecutor::new(N::PLAN, options).unwrap();
    load(&mut executor, &golden.start());
    executor.differentiate(batch, Step::default()).unwrap();
    [
        logits(&executor, labels.len()),
        read(&executor, Arena::Gradients),
    ]
}

/// The differences of the logits and the gradients of PyTorch's bfloat16 autocast on the same pass
/// (`scripts/reference/autocast.py`). That of the gradients is large, because a value within a
/// rounding of zero may fall on the other side of a ReLU, which shows in networks of a few hundred
/// pixels.
fn autocast(golden: &str) -> [f64; 2] {
    match golden {
        "plain" => [0.0047, 0.1507],
        "bottleneck" => [0.0059, 0.1278],
        "compressed" => [0.0059, 0.0351],
        "bc" => [0.0086, 0.2123],
        "imagenet_bc" => [0.0358, 0.2986],
        "imagenet_compressed" => [0.0031, 0.0800],
        "one_block" => [0.0053, 0.0205],
        other => panic!("no figures for {other}"),
    }
}

fn check<N: Case>() {
    let [mut most, mut most_gradient] = autocast(N::GOLDEN).map(|theirs| 2.0 * theirs);
    // After its last pool a map is one pixel, and BN over a batch of five such pixels blows any
    // rounding up: PyTorch's as well.
    if N::GOLDEN != "imagenet_bc" {
        most = most.min(2e-2);
        most_gradient = most_gradient.min(0.2);
    }
    let [exact, gradients] = pass::<N>(Precision::F32, Level::detect(), 1);
    let mut rounded: Vec<Vec<f32>> = Vec::new();
    for level in [
        Level::Baseline,
        Level::Avx2,
        Level::Avx512,
        Level::Avx512Bf16,
    ] {
        let [found, gradient] = pass::<N>(Precision::Bf16, level, 2);
        let (off, gradient_off) = (difference(&found, &exact), distance(&gradient, &gradients));
        assert!(
            off < most && gradient_off < most_gradient,
            "{level:?}: logits differ by {off}, gradients by {gradient_off}"
        );
        assert!(off > 1e-5, "{level:?}: nothing was rounded");
        // Instruction sets round alike: they are nearer to each other than to f32.
        if let Some(first) = rounded.first() {
            let apart = distance(&gradient, first);
            assert!(
                apart < gradient_off,
                "{level:?}: {apart} from another, {gradient_off}"
            );
        }
        rounded.push(gradient);
    }
}

each_network!(check);

//! Dropout: each step and each rank drops values of its own.

use densenet_runtime::dfdx::prelude::*;
use densenet_runtime::parallel::{Parallel, Threads};
use densenet_runtime::plan::Recompute;
use densenet_runtime::{Batch, Executor, Network, Pixels, Step, cpu, densenet};
use densenet_tests::executor::{load, logits, on_cpu};
use densenet_tests::random;
use densenet_tests::ranks::together;

densenet! {
    /// Dropout after each convolution.
    Dropping { blocks: [1], k: 4, dropout: 0.5, stem: cifar, init: 4, input: [2, 6, 6], classes: 3 }
}

#[test]
fn each_step_drops_other_values_though_images_come_from_new_devices() {
    let mut model = Cpu::default().build_module::<Dropping, f32>();
    let (pixels, _) = random::batch(&Dropping::PLAN, 2, 1);
    // The batch's statistics normalise, so only dropout can differ.
    let mut logits = || {
        let images = Dropping::images(pixels.clone()).unwrap();
        let logits = model.forward_mut(images.leaky_traced());
        logits.split_tape().0.as_vec()
    };
    assert_ne!(logits(), logits());
}

#[test]
fn each_rank_drops_values_of_its_own() {
    let plan = Dropping::PLAN;
    let found = together(Threads::group(2), |collective, _| {
        let own = on_cpu(&plan, 2, Recompute::Nothing, cpu::Precision::F32);
        let mut own = Parallel::new(Box::new(own), Box::new(collective));
        load(&mut own, &random::state(&plan, 1));
        // The same on both.
        let (pixels, labels) = random::batch(&plan, 2, 1);
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
        own.differentiate(batch, Step::default()).unwrap();
        logits(&own, 2)
    });
    assert_ne!(found[0], found[1]);
}

//! A frozen network agrees with PyTorch, on the CPU and on an emulated CUDA device: logits, pooled
//! features, class maps, the last feature maps and the output of each block.

use densenet_runtime::cpu::FrozenOptions;
use densenet_runtime::{Inference, MapsOf, Outputs, Pixels, cuda};
use densenet_tests::compare::Comparison;
use densenet_tests::each_network;
use densenet_tests::emulated::{alone, device, frozen_on_cuda, frozen_options};
use densenet_tests::golden::Golden;
use densenet_tests::networks::Case;
use dfdx::prelude::*;

fn check<N: Case>() {
    let golden = Golden::open(N::GOLDEN, &N::PLAN);
    let maps = Golden::open(&format!("maps_{}", N::GOLDEN), &N::PLAN);
    let mut net: N = BuildModule::build(&Cpu::default());
    golden.start().store_into(&mut net).unwrap();

    let classes: Vec<_> = (0..N::PLAN.classes()).collect();
    let outputs = Outputs::all(classes.len());
    let (images, logits) = (golden.images(), golden.tensor("logits.eval"));
    let count = maps.tensor("features").len() / N::PLAN.features();
    let images = &images[..count * images.len() * classes.len() / logits.len()];
    let (pixels, of) = (Pixels::Nchw(images), MapsOf::Classes(&classes));
    let agrees = |device: &str, said: Inference<'_>| {
        let mut compare = Comparison::within(1e-4);
        compare.add("logits", said.logits, &logits[..count * classes.len()]);
        compare.add("features", said.features, &maps.tensor("features"));
        compare.add("class maps", said.class_maps, &maps.tensor("class_maps"));
        compare.add("last maps", said.last_maps, &maps.tensor("last_maps"));
        for block in 0..N::PLAN.blocks().len() {
            let name = format!("block_maps.{}", block + 1);
            compare.add(&name, said.block(block), &maps.tensor(&name));
        }
        compare.assert(&format!("{} on {device}", N::GOLDEN));
    };

    let options = FrozenOptions {
        outputs,
        ..FrozenOptions::for_batch(3)
    };
    let mut frozen = net.freeze(options).unwrap();
    agrees("the CPU", frozen.infer_with(pixels, count, of).unwrap());

    let _alone = alone();
    let (_, device) = device();
    let options = cuda::FrozenOptions {
        outputs,
        ..frozen_options(3)
    };
    let mut frozen = frozen_on_cuda(&device, &N::PLAN, &golden.start(), options);
    let said = frozen.infer_with(pixels, count, of);
    agrees("CUDA", said.unwrap_or_else(|error| panic!("{error}")));
}

each_network!(check);

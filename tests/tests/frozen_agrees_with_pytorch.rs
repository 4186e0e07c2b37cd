//! A frozen network agrees with PyTorch in f64, on the CPU and on an emulated CUDA device, there in f32
//! and in bf16: logits, pooled features, class maps, the last feature maps and the output of each block.

use densenet_runtime::cpu::FrozenOptions;
use densenet_runtime::plan::Precision;
use densenet_runtime::{Inference, MapsOf, Outputs, Pixels, cuda};
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::each_network;
use densenet_tests::emulated::{alone, device, frozen_on_cuda, frozen_options};
use densenet_tests::golden::Golden;
use densenet_tests::networks::Case;
use dfdx::prelude::*;

/// How far bf16 may be from f64. PyTorch's own autocast is up to 8.5e-3 away on these networks
/// (`scripts/reference/autocast.py`).
const BFLOAT16: f64 = 2e-2;

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
    let agrees = |device: &str, tolerance: f64, said: Inference<'_>| {
        let mut compare = Comparison::within(tolerance);
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
    let said = frozen.infer_with(pixels, count, of).unwrap();
    agrees("the CPU", TOLERANCE, said);

    let _alone = alone();
    let (_, device) = device();
    for (precision, tolerance) in [(Precision::F32, TOLERANCE), (Precision::Bf16, BFLOAT16)] {
        let options = cuda::FrozenOptions {
            precision,
            outputs,
            ..frozen_options(3)
        };
        let mut frozen = frozen_on_cuda(&device, &N::PLAN, &golden.start(), options);
        let said = frozen.infer_with(pixels, count, of);
        let said = said.unwrap_or_else(|error| panic!("{error}"));
        agrees(&format!("CUDA in {precision}"), tolerance, said);
    }
}

each_network!(check);

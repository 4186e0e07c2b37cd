//! Parts that are frozen anywhere do on an (emulated) CUDA device what PyTorch's do in eval() with
//! `requires_grad_(False)`.

use densenet_runtime::cuda::CudaOptions;
use densenet_runtime::plan::Precision;
use densenet_runtime::{Arena, Batch, Executor, Network, Pixels, Step};
use densenet_tests::compare::{difference, distance};
use densenet_tests::each_frozen_case;
use densenet_tests::emulated::{alone, device, on_cuda, options};
use densenet_tests::executor::{load, logits, read};
use densenet_tests::frozen_parts::{agree, groups};
use densenet_tests::networks::{Bc, Case};
use densenet_tests::random;

fn check<N: Case>(case: &str, parts: &[&str]) {
    let _alone = alone();
    let (_, device) = device();
    agree::<N>(case, parts, &|plan, batch| {
        let options = CudaOptions {
            second_moments: true,
            ..options(batch)
        };
        Box::new(on_cuda(&device, plan, options))
    });
}

each_frozen_case!(check);

#[test]
fn in_bfloat16_only_roundings_differ() {
    let _alone = alone();
    let (_, device) = device();
    let plan = &Bc::PLAN;
    let parts = [
        "features.denseblock1.denselayer2",
        "features.denseblock2.denselayer1.norm2",
        "features.transition2",
        "features.norm5",
    ];
    let (pixels, labels) = random::batch(plan, 4, 1);
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
    let [exact, found] = [Precision::F32, Precision::Bf16].map(|precision| {
        let options = CudaOptions {
            precision,
            ..options(4)
        };
        let mut executor = on_cuda(&device, plan, options);
        load(&mut executor, &random::state(plan, 1));
        executor.set_groups(&groups(plan, &parts)).unwrap();
        executor.differentiate(batch, Step::default()).unwrap();
        let gradients = read(&executor, Arena::Gradients);
        for group in groups(plan, &parts) {
            let still = gradients[group.range].iter().all(|&value| value == 0.0);
            assert!(still || !group.frozen);
        }
        (logits(&executor, 4), gradients)
    });
    let [off, gradients] = [difference(&found.0, &exact.0), distance(&found.1, &exact.1)];
    assert!(off > 1e-6 && off < 0.02, "{off} of the logits");
    assert!(gradients < 0.3, "{gradients} of the gradients");
}

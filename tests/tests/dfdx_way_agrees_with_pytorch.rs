//! A network trained in dfdx's way - `forward_mut(x.trace(gradients))`, dfdx's loss, `backward()`,
//! dfdx's `Sgd` - agrees with PyTorch: outputs, gradients, running statistics, and the weights
//! after three steps.

use densenet_runtime::weights::State;
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::dfdx_way::arena;
use densenet_tests::each_network;
use densenet_tests::golden::Golden;
use densenet_tests::networks::Case;
use dfdx::nn::ZeroGrads;
use dfdx::optim::{Momentum, Optimizer, Sgd, SgdConfig, WeightDecay};
use dfdx::prelude::Cpu;

fn check<N: Case>() {
    let golden = Golden::open(N::GOLDEN, &N::PLAN);
    let (images, labels) = (golden.images(), golden.labels());
    let mut model = N::build(&Cpu::default());
    golden.start().store_into(&mut model).unwrap();
    let mut compare = Comparison::within(TOLERANCE);

    let logits = model.evaluate(&images);
    compare.add("evaluation logits", &logits, &golden.tensor("logits.eval"));

    let mut sgd = Sgd::new(
        &model,
        SgdConfig {
            lr: f64::from(golden.learning_rate()),
            momentum: Some(Momentum::Nesterov(0.9)),
            weight_decay: Some(WeightDecay::L2(1e-4)),
        },
    );
    let mut losses = Vec::new();
    let mut gradients = model.alloc_grads();
    for step in 1..=3 {
        let pass = model.differentiate(&images, &labels, gradients);
        losses.push(pass.loss);
        gradients = pass.gradients;
        if step == 1 {
            compare.add("logits", &pass.logits, &golden.tensor("logits.train"));
            let found = arena(&model, &gradients);
            compare.add_parameters("gradient of", &N::PLAN, &found, &golden.gradients());
            let found = State::of(&model).running;
            let expected = golden.running_after_first_pass();
            compare.add_running("step 1:", &N::PLAN, &found, &expected);
        }
        sgd.update(&mut model, &gradients).unwrap();
        model.zero_grads(&mut gradients);
    }
    compare.add("losses", &losses, &golden.tensor("losses"));
    let found = State::of(&model);
    compare.add_state("step 3:", &N::PLAN, &found, &golden.after_three_steps());
    let logits = model.evaluate(&images);
    let expected = golden.tensor("logits.eval.step3");
    compare.add("evaluation logits after step 3", &logits, &expected);
    compare.assert(N::GOLDEN);
}

each_network!(check);

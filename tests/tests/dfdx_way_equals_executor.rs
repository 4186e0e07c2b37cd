//! The two ways to train are one engine: in dfdx's way a network has the executor's outputs,
//! gradients and running statistics.

use densenet_runtime::weights::State;
use densenet_runtime::{Arena, Batch, Executor, Pixels, Step, cpu};
use densenet_tests::compare::Comparison;
use densenet_tests::dfdx_way::arena;
use densenet_tests::each_network;
use densenet_tests::executor::{load, logits, read};
use densenet_tests::golden::Golden;
use densenet_tests::networks::Case;
use dfdx::nn::ZeroGrads;
use dfdx::prelude::Cpu;

/// The same arithmetic, but dfdx's loss, and gradients handed from stage to stage. The gradient
/// of the ImageNet stem's norm is where rounding shows (1e-5): it is a small sum of large terms,
/// since the norms after the pool undo most of what a scale does.
const TOLERANCE: f64 = 5e-5;

fn check<N: Case>() {
    // A batch that keeps away from the kinks of ReLU.
    let golden = Golden::open(N::GOLDEN, &N::PLAN);
    let (state, images, labels) = (golden.start(), golden.images(), golden.labels());

    let mut model = N::build(&Cpu::default());
    state.store_into(&mut model).unwrap();
    let gradients = model.alloc_grads();
    let pass = model.differentiate(&images, &labels, gradients);

    let options = cpu::CpuOptions::for_batch(labels.len());
    let mut executor = cpu::CpuExecutor::new(N::PLAN, options).unwrap();
    load(&mut executor, &state);
    let batch = Batch::of_classes(Pixels::Nchw(&images), &labels);
    let step = Step {
        label_smoothing: 0.0,
        scale: 1.0,
        accumulate: false,
        seed: 0,
    };
    let outcome = executor.differentiate(batch, step).unwrap();

    let mut compare = Comparison::within(TOLERANCE);
    compare.add("loss", &[pass.loss], &[outcome.loss as f32]);
    let expected = logits(&executor, labels.len());
    compare.add("logits", &pass.logits, &expected);
    let found = arena(&model, &pass.gradients);
    let expected = read(&executor, Arena::Gradients);
    compare.add_parameters("gradient of", &N::PLAN, &found, &expected);
    let expected = read(&executor, Arena::Running);
    compare.add_running("running", &N::PLAN, &State::of(&model).running, &expected);
    compare.assert(N::GOLDEN);
}

each_network!(check);

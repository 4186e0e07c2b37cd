//! The CPU executor agrees with PyTorch: outputs, gradients, running statistics, and the weights
//! after three steps; with and without recomputing, on one thread and on several, with each
//! instruction set.

use densenet_runtime::cpu::Level;
use densenet_runtime::plan::Recompute;
use densenet_runtime::{Arena, Batch, Executor, Pixels, Sgd, Step, cpu};
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::each_network;
use densenet_tests::executor::{evaluate, load, logits, read, state};
use densenet_tests::golden::Golden;
use densenet_tests::networks::Case;

fn check<N: Case>() {
    let best = Level::detect();
    check_with::<N>(Recompute::Nothing, 1, best);
    check_with::<N>(Recompute::Bottlenecks, 3, best);
    check_with::<N>(Recompute::Nothing, 2, Level::Avx2);
    check_with::<N>(Recompute::Bottlenecks, 1, Level::Baseline);
}

fn check_with<N: Case>(recompute: Recompute, threads: usize, level: Level) {
    let golden = Golden::open(N::GOLDEN, &N::PLAN);
    let (images, labels) = (golden.images(), golden.labels());
    let batch = Batch::of_classes(Pixels::Nchw(&images), &labels);
    let options = cpu::CpuOptions {
        recompute,
        threads,
        level,
        // More than the batch: its size must not matter.
        ..cpu::CpuOptions::for_batch(labels.len() + 2)
    };
    let mut executor = cpu::CpuExecutor::new(N::PLAN, options).unwrap();
    load(&mut executor, &golden.start());
    let mut compare = Comparison::within(TOLERANCE);

    let found = evaluate(&mut executor, batch);
    compare.add("evaluation logits", &found, &golden.tensor("logits.eval"));

    let sgd = Sgd {
        learning_rate: golden.learning_rate(),
        momentum: 0.9,
        weight_decay: 1e-4,
        nesterov: true,
    };
    let mut losses = Vec::new();
    for number in 1..=3 {
        let step = Step {
            label_smoothing: 0.0,
            scale: 1.0,
            accumulate: false,
            seed: number,
        };
        let outcome = executor.differentiate(batch, step).unwrap();
        losses.push(outcome.loss as f32);
        if number == 1 {
            let found = logits(&executor, labels.len());
            compare.add("logits", &found, &golden.tensor("logits.train"));
            let found = read(&executor, Arena::Gradients);
            compare.add_parameters("gradient of", &N::PLAN, &found, &golden.gradients());
            let found = read(&executor, Arena::Running);
            let expected = golden.running_after_first_pass();
            compare.add_running("step 1:", &N::PLAN, &found, &expected);
        }
        executor.descend(sgd.into()).unwrap();
    }
    compare.add("losses", &losses, &golden.tensor("losses"));
    let found = state(&executor);
    compare.add_state("step 3:", &N::PLAN, &found, &golden.after_three_steps());
    let found = evaluate(&mut executor, batch);
    let expected = golden.tensor("logits.eval.step3");
    compare.add("evaluation logits after step 3", &found, &expected);
    let network = N::GOLDEN;
    compare.assert(&format!(
        "{network}, {recompute:?} recomputed, {threads} threads, {level:?}"
    ));
}

each_network!(check);

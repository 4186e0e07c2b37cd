//! A step whose loss is not finite changes nothing, on either device, and a network with equal or
//! NaN logits is never counted as correct.

use densenet_runtime::plan::{Plan, Precision, Recompute};
use densenet_runtime::{Arena, Batch, Executor, Network, Pixels, Sgd, Step, densenet};
use densenet_tests::emulated::{alone, device, on_cuda, options};
use densenet_tests::executor::{load, on_cpu, read};
use densenet_tests::random;

densenet! {
    /// With every kind of stage.
    Small {
        blocks: [2, 1],
        k: 4,
        theta: 0.5,
        bottleneck,
        dropout: 0.2,
        stem: imagenet,
        init: 8,
        input: [2, 20, 20],
        classes: 3,
    }
}

densenet! {
    /// With more classes than five.
    Seven { blocks: [1], k: 4, stem: cifar, init: 4, input: [2, 5, 5], classes: 7 }
}

const BATCH: usize = 4;
const ARENAS: [Arena; 3] = [Arena::Parameters, Arena::Momentum, Arena::Running];

fn on_both(plan: &Plan, test: impl Fn(&str, &mut dyn Executor)) {
    let mut cpu = on_cpu(plan, BATCH, Recompute::Nothing, Precision::F32);
    test("CPU", &mut cpu);
    let _alone = alone();
    let (_, device) = device();
    for graphs in [true, false] {
        let options = densenet_runtime::cuda::CudaOptions {
            graphs,
            ..options(BATCH)
        };
        test("CUDA", &mut on_cuda(&device, plan, options));
    }
}

/// Pieces of a step, one after another; the loss of each.
fn step(executor: &mut dyn Executor, pieces: &[(Vec<f32>, Vec<u32>)]) -> Vec<f64> {
    let mut started = Vec::new();
    for (index, (pixels, labels)) in pieces.iter().enumerate() {
        let batch = Batch::of_classes(Pixels::Nchw(pixels), labels);
        let step = Step {
            scale: 1.0 / pieces.len() as f32,
            accumulate: index > 0,
            seed: 7 + index as u64,
            ..Step::default()
        };
        let pending = if index + 1 < pieces.len() {
            executor.start(batch, step)
        } else {
            executor.step(batch, step, Sgd::default().into())
        };
        started.push(pending.unwrap());
        // Who knows at once that a piece is broken starts no further one.
        let known = started[index].outcome();
        if known.is_some_and(|outcome| !outcome.loss.is_finite()) {
            break;
        }
    }
    started
        .into_iter()
        .map(|pending| executor.finish(pending).unwrap().loss)
        .collect()
}

#[test]
fn a_step_that_is_refused_changes_nothing() {
    let plan = &Small::PLAN;
    let piece = |seed| random::batch(plan, BATCH, seed);
    let broken = |value| {
        let (mut pixels, labels) = piece(3);
        pixels[5] = value;
        (pixels, labels)
    };
    on_both(plan, |name, executor| {
        load(executor, &random::state(plan, 1));
        assert!(step(executor, &[piece(1)])[0].is_finite());
        for value in [f32::NAN, f32::INFINITY] {
            for pieces in [
                vec![broken(value)],
                vec![piece(1), broken(value)],
                vec![broken(value), piece(1)],
                vec![piece(2), broken(value), piece(1)],
            ] {
                let before = ARENAS.map(|arena| read(executor, arena));
                let losses = step(executor, &pieces);
                assert!(losses.iter().any(|loss| !loss.is_finite()), "{name}");
                let after = ARENAS.map(|arena| read(executor, arena));
                assert!(before == after, "{name}, {} pieces", pieces.len());
            }
        }
        // And training goes on.
        let before = read(executor, Arena::Running);
        assert!(step(executor, &[piece(1), piece(2)])[1].is_finite());
        let after = read(executor, Arena::Running);
        assert_ne!(before, after);
        assert!(after.iter().all(|value| value.is_finite()), "{name}");
    });
}

#[test]
fn a_network_that_says_nothing_is_not_right() {
    for (plan, top5_of_ties) in [(&Small::PLAN, BATCH), (&Seven::PLAN, 0)] {
        let (pixels, labels) = random::batch(plan, BATCH, 1);
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &labels);
        on_both(plan, |name, executor| {
            for (value, top5) in [(f32::NAN, 0), (0.0, top5_of_ties)] {
                let parameters = vec![value; plan.parameter_count()];
                executor.write(Arena::Parameters, &parameters).unwrap();
                let found = executor.evaluate(batch).unwrap();
                assert_eq!((found.top1, found.top5), (0, top5), "{name}, {value}");
                let found = executor.differentiate(batch, Step::default()).unwrap();
                assert_eq!((found.top1, found.top5), (0, top5), "{name}, {value}");
            }
            // One class of all is NaN: its bias, which comes last.
            let mut state = random::state(plan, 1);
            *state.parameters.last_mut().unwrap() = f32::NAN;
            load(executor, &state);
            let found = executor.evaluate(batch).unwrap();
            assert_eq!((found.top1, found.top5), (0, 0), "{name}");
        });
    }
}

//! Frozen stages do what PyTorch's do in eval() with `requires_grad_(False)`: the logits, and the
//! gradients and running statistics of the training stages, are PyTorch's, and not a bit of the
//! frozen stages changes; on the CPU and on an emulated CUDA device.

use densenet_runtime::cpu::{CpuExecutor, CpuOptions};
use densenet_runtime::cuda;
use densenet_runtime::plan::{Frozen, Plan, Recompute};
use densenet_runtime::{AdamW, Arena, Batch, Descent, Executor, ExecutorError, Network, Pixels};
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::emulated::{alone, device, on_cuda, options};
use densenet_tests::executor::{load, logits, read};
use densenet_tests::golden::Golden;
use densenet_tests::networks::{Bc, Case, ImageNetBc, Plain};
use densenet_tests::random;

const ARENAS: [Arena; 6] = [
    Arena::Parameters,
    Arena::Momentum,
    Arena::SecondMoments,
    Arena::Average,
    Arena::Running,
    Arena::AverageRunning,
];

fn agree<N: Case>(counts: &[usize], make: &dyn Fn(&Plan, usize, Frozen) -> Box<dyn Executor>) {
    let plan = &N::PLAN;
    let start = Golden::open(N::GOLDEN, plan).start();
    let golden = Golden::open(&format!("frozen_{}", N::GOLDEN), plan);
    let (images, labels) = (golden.images(), golden.labels());
    let batch = Batch::of_classes(Pixels::Nchw(&images), &labels);
    for &count in counts {
        let frozen = Frozen::first(count);
        let [own, statistics] = plan.trainable(frozen);
        let mut executor = make(plan, labels.len(), frozen);
        let executor = &mut *executor;
        load(executor, &start);
        executor.write(Arena::Average, &start.parameters).unwrap();
        let running = &start.running;
        executor.write(Arena::AverageRunning, running).unwrap();
        let before = ARENAS.map(|arena| read(executor, arena));

        let step = densenet_runtime::Step::default();
        executor.differentiate(batch, step).unwrap();
        let mut compare = Comparison::within(TOLERANCE);
        let found = logits(executor, labels.len());
        compare.add("logits", &found, &golden.tensor(&format!("{count}.logits")));
        let gradients = read(executor, Arena::Gradients);
        assert!(gradients[..own.start].iter().all(|&value| value == 0.0));
        let moved = read(executor, Arena::Running);
        let mut compared = [0, 0];
        for tensor in plan.parameters() {
            let is_trainable = tensor.role.is_trainable();
            let trains = if is_trainable { &own } else { &statistics };
            if tensor.offset < trains.start {
                continue;
            }
            compared[usize::from(is_trainable)] += tensor.len();
            let (kind, found) = match is_trainable {
                true => ("grad", &gradients[tensor.range()]),
                false => ("running", &moved[tensor.range()]),
            };
            let name = format!("{count}.{kind}.{}", tensor.torchvision);
            compare.add(&name, found, &golden.tensor(&name));
        }
        assert_eq!(compared, [statistics.len(), own.len()]);
        compare.assert(&format!("{}, {count} stages frozen", N::GOLDEN));

        for step in 1..=2 {
            executor.differentiate(batch, Default::default()).unwrap();
            let adamw = AdamW {
                step,
                ..AdamW::default()
            };
            let descent = Descent {
                clip: Some(1.0),
                ema: Some(0.9),
                ..adamw.into()
            };
            executor.descend(descent).unwrap();
        }
        for (arena, before) in ARENAS.into_iter().zip(before) {
            let after = read(executor, arena);
            let first = match arena {
                Arena::Running | Arena::AverageRunning => statistics.start,
                _ => own.start,
            };
            let bits =
                |values: &[f32]| -> Vec<u32> { values.iter().map(|v| v.to_bits()).collect() };
            assert_eq!(bits(&after[..first]), bits(&before[..first]), "{arena:?}");
            let moved = after[first..] != before[first..];
            assert!(moved || first == after.len(), "{arena:?} of what trains");
        }
    }
}

fn all(make: &dyn Fn(&Plan, usize, Frozen) -> Box<dyn Executor>) {
    agree::<Bc>(&[1, 2, 3, 4, 6, 7], make);
    agree::<ImageNetBc>(&[1, 2, 5, 8, 9], make);
    agree::<Plain>(&[2, 5], make);
}

fn on_the_cpu(threads: usize, recompute: Recompute) {
    all(&|plan, batch, frozen| {
        let options = CpuOptions {
            threads,
            recompute,
            second_moments: true,
            average: true,
            frozen,
            ..CpuOptions::for_batch(batch)
        };
        Box::new(CpuExecutor::new(plan.clone(), options).unwrap())
    });
}

#[test]
fn on_one_thread_of_the_cpu() {
    on_the_cpu(1, Recompute::Nothing);
}

#[test]
fn on_three_threads_with_recomputed_bottlenecks() {
    on_the_cpu(3, Recompute::Bottlenecks);
}

#[test]
fn on_a_cuda_device() {
    let _alone = alone();
    let (_, device) = device();
    all(&|plan, batch, frozen| {
        let options = cuda::CudaOptions {
            second_moments: true,
            average: true,
            frozen,
            ..options(batch)
        };
        Box::new(on_cuda(&device, plan, options))
    });
}

/// They are packed once, and again when others are written.
#[test]
fn frozen_stages_run_with_the_weights_that_were_written_last() {
    let plan = &Bc::PLAN;
    let options = CpuOptions {
        frozen: Frozen::first(3),
        threads: 1,
        ..CpuOptions::for_batch(2)
    };
    let make = || CpuExecutor::new(plan.clone(), options).unwrap();
    let [first, second] = [1, 2].map(|seed| random::state(plan, seed));
    let (images, labels) = random::batch(plan, 2, 1);
    let batch = Batch::of_classes(Pixels::Nchw(&images), &labels);
    let of = |executor: &mut CpuExecutor| {
        executor.evaluate(batch).unwrap();
        logits(executor, 2)
    };
    let mut executor = make();
    load(&mut executor, &first);
    let mut seen = vec![of(&mut executor)];
    let moved = [
        (Arena::Parameters, &second.parameters),
        (Arena::Running, &second.running),
    ];
    for (arena, values) in moved {
        executor.write(arena, values).unwrap();
        let found = of(&mut executor);
        let mut other = make();
        for arena in [Arena::Parameters, Arena::Running] {
            other.write(arena, &read(&executor, arena)).unwrap();
        }
        assert_eq!(found, of(&mut other), "{arena:?}");
        assert!(!seen.contains(&found), "{arena:?}");
        seen.push(found);
    }
}

#[test]
fn a_network_without_a_stage_that_trains_is_refused() {
    let stages = Bc::PLAN.stages().len();
    let options = CpuOptions {
        frozen: Frozen::first(stages),
        ..CpuOptions::for_batch(2)
    };
    let error = CpuExecutor::new(Bc::PLAN, options).err().unwrap();
    assert!(matches!(error, ExecutorError::Frozen { .. }));
    assert!(error.to_string().contains("classifier"), "{error}");
}

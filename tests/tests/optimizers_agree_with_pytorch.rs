//! A step along the gradients agrees with PyTorch: SGD, AdamW, groups of parameters, clipping by
//! the global norm of the gradients, and the exponential moving average of parameters and running
//! statistics; on the CPU with one thread and several, and on an emulated CUDA device.

use densenet_runtime::cpu::{CpuExecutor, CpuOptions};
use densenet_runtime::cuda;
use densenet_runtime::{
    AdamW, Arena, Descent, Executor, ExecutorError, Group, Network, Optimizer, Sgd,
};
use densenet_tests::emulated::{alone, device, on_cuda, options};
use densenet_tests::executor::read;
use densenet_tests::networks::OneBlock;
use serde_json::Value;

/// How far numbers may be from PyTorch's, which are computed in f64.
const TOLERANCE: f64 = 2e-6;

fn floats(value: &Value) -> Vec<f32> {
    let numbers = value.as_array().unwrap().iter();
    numbers
        .map(|number| number.as_f64().unwrap() as f32)
        .collect()
}

/// Puts some numbers in front of an arena of zeros.
fn put(executor: &mut dyn Executor, arena: Arena, numbers: &[f32]) {
    let plan = executor.plan();
    let count = match arena {
        Arena::Running | Arena::AverageRunning => plan.running_count(),
        _ => plan.parameter_count(),
    };
    let mut all = vec![0.0; count];
    all[..numbers.len()].copy_from_slice(numbers);
    executor.write(arena, &all).unwrap();
}

fn compare(what: &str, found: &[f32], expected: &[f32]) {
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = f64::from((found - expected).abs());
        assert!(
            difference <= TOLERANCE * f64::from(expected.abs()).max(1.0),
            "{what}, number {index}: {found}, PyTorch has {expected}"
        );
    }
}

fn settings(case: &Value, learning_rate: f32, step: u64) -> Descent {
    let number = |name: &str| case[name].as_f64();
    let weight_decay = number("weight_decay").unwrap() as f32;
    let optimizer = match &case["adamw"] {
        Value::Null => Optimizer::Sgd(Sgd {
            learning_rate,
            momentum: number("momentum").unwrap() as f32,
            weight_decay,
            nesterov: case["nesterov"].as_bool().unwrap(),
        }),
        own => Optimizer::AdamW(AdamW {
            learning_rate,
            betas: [0, 1].map(|which| own["betas"][which].as_f64().unwrap()),
            epsilon: own["epsilon"].as_f64().unwrap() as f32,
            weight_decay,
            step,
        }),
    };
    Descent {
        clip: number("clip").map(|most| most as f32),
        ema: number("ema"),
        ..optimizer.into()
    }
}

/// Takes all steps of all cases, on an executor that `make` makes for each.
fn agree(make: impl Fn() -> Box<dyn Executor>) {
    let golden = include_str!("../golden/optimizers.json");
    let golden: Vec<Value> = serde_json::from_str(golden).unwrap();
    assert_eq!(golden.len(), 9);
    for case in &golden {
        let name = case["name"].as_str().unwrap();
        let mut executor = make();
        let executor = &mut *executor;
        let count = executor.plan().parameter_count();
        let split = case["split"].as_u64().unwrap() as usize;
        let group = |range, which: usize| {
            let [rate, decay] = [0, 1].map(|share| case["groups"][which][share].as_f64());
            Group {
                range,
                rate: rate.unwrap() as f32,
                decay: decay.unwrap() as f32,
                frozen: false,
            }
        };
        let groups = [group(0..split, 0), group(split..count, 1)];
        executor.set_groups(&groups).unwrap();
        put(executor, Arena::Parameters, &floats(&case["start"]));
        if !case["ema"].is_null() {
            put(executor, Arena::Average, &floats(&case["start"]));
            let running = floats(&case["running"][0]);
            put(executor, Arena::AverageRunning, &running);
        }
        for (step, rate) in floats(&case["rates"]).into_iter().enumerate() {
            put(
                executor,
                Arena::Gradients,
                &floats(&case["gradients"][step]),
            );
            put(
                executor,
                Arena::Running,
                &floats(&case["running"][step + 1]),
            );
            let descent = settings(case, rate, step as u64 + 1);
            executor.descend(descent).unwrap();
            let check = |arena, expected: &Value| {
                let what = format!("{name}, step {step}, {arena:?}");
                compare(&what, &read(executor, arena), &floats(expected));
            };
            check(Arena::Parameters, &case["parameters"][step]);
            if !case["ema"].is_null() {
                check(Arena::Average, &case["averages"][step]);
                check(Arena::AverageRunning, &case["average_running"][step]);
            }
        }
    }
}

#[test]
fn on_the_cpu() {
    for threads in [1, 3] {
        agree(|| {
            let options = CpuOptions {
                threads,
                second_moments: true,
                average: true,
                ..CpuOptions::for_batch(1)
            };
            Box::new(CpuExecutor::new(OneBlock::PLAN, options).unwrap())
        });
    }
}

#[test]
fn on_a_cuda_device() {
    let _alone = alone();
    let (_, device) = device();
    agree(|| {
        let options = cuda::CudaOptions {
            second_moments: true,
            average: true,
            ..options(1)
        };
        Box::new(on_cuda(&device, &OneBlock::PLAN, options))
    });
}

#[test]
fn what_an_executor_does_not_keep_is_refused_by_name() {
    let _alone = alone();
    let (_, device) = device();
    let cpu: Box<dyn Executor> =
        Box::new(CpuExecutor::new(OneBlock::PLAN, CpuOptions::for_batch(1)).unwrap());
    let cuda: Box<dyn Executor> = Box::new(on_cuda(&device, &OneBlock::PLAN, options(1)));
    for mut executor in [cpu, cuda] {
        let averaged = Descent {
            ema: Some(0.9),
            ..Sgd::default().into()
        };
        for (descent, expected) in [
            (AdamW::default().into(), "second_moments: true"),
            (averaged, "average: true"),
        ] {
            let error = executor.descend(descent).unwrap_err();
            assert!(matches!(error, ExecutorError::NotKept { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        let mut into = vec![0.0; executor.plan().parameter_count()];
        assert!(executor.read(Arena::SecondMoments, &mut into).is_err());
        assert!(executor.write(Arena::Average, &into).is_err());
    }
}

#[test]
fn groups_that_leave_parameters_out_are_refused() {
    let mut executor = CpuExecutor::new(OneBlock::PLAN, CpuOptions::for_batch(1)).unwrap();
    let count = OneBlock::PLAN.parameter_count();
    let group = |range, rate| Group {
        range,
        rate,
        ..Group::all(count)
    };
    for groups in [
        vec![],
        vec![group(0..count - 1, 1.0)],
        vec![group(1..count, 1.0)],
        vec![group(0..2, 1.0), group(3..count, 1.0)],
        vec![group(0..3, 1.0), group(2..count, 1.0)],
        vec![group(0..count, -1.0)],
        vec![group(0..count, f32::NAN)],
    ] {
        assert!(executor.set_groups(&groups).is_err(), "{groups:?}");
    }
}

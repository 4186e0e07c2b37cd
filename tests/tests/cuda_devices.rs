//! A CUDA device that cannot be used is an error that says what was looked for and where; the
//! best device is then the CPU. Nothing panics.

use std::process::Command;

use cuda_emulator::{Emulator, Kind};
use densenet_runtime::cpu::FrozenOptions;
use densenet_runtime::cuda::{CudaError, CudaOptions};
use densenet_runtime::dfdx::prelude::{Cpu, DeviceBuildExt};
use densenet_runtime::parallel::{Ranks, Secret};
use densenet_runtime::plan::{Precision, Recompute};
use densenet_runtime::train::{Config, Trainer};
use densenet_runtime::{Device, DeviceChoice, Frozen, Network, Pixels};
use densenet_tests::compare::{Comparison, TOLERANCE};
use densenet_tests::networks::Bc;
use densenet_tests::{cause, is_installed, random};

/// Names the test that a child process is to run: what is opened, and the device's state, belong
/// to a process.
const ALONE: &str = "CUDA_DEVICES_TEST";
const FOLDER: &str = env!("CARGO_TARGET_TMPDIR");

/// Runs `work` in a process of its own.
fn alone(test: &str, work: impl FnOnce()) {
    if std::env::var(ALONE).is_ok_and(|name| name == test) {
        return work();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, test)
        .env("XDG_CACHE_HOME", FOLDER)
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&child.stdout), said(&child.stderr));
    assert!(child.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "{out}");
}

fn contains(error: &str, expected: &[&str]) {
    for expected in expected {
        assert!(error.contains(expected), "`{expected}` is not in: {error}");
    }
}

fn refused(ordinal: usize) -> String {
    Device::cuda(ordinal).err().expect("an error").to_string()
}

#[test]
fn without_cuda_the_error_names_the_driver_and_the_best_device_is_the_cpu() {
    alone(
        "without_cuda_the_error_names_the_driver_and_the_best_device_is_the_cpu",
        || {
            if is_installed("libcuda.so") {
                return;
            }
            contains(
                &refused(0),
                &[
                    "no CUDA driver",
                    "libcuda.so.1 ",
                    "LD_LIBRARY_PATH (not set)",
                ],
            );
            let best = Device::best();
            assert!(matches!(best.device, Device::Cpu));
            contains(
                &best.to_string(),
                &["CPU, since there is no CUDA device to use", "libcuda.so"],
            );
            assert!(matches!(DeviceChoice::Best.open(), Ok(Device::Cpu)));
            assert!(DeviceChoice::Cuda(0).open().is_err());
        },
    );
}

#[test]
fn without_nvrtc_the_error_names_it() {
    alone("without_nvrtc_the_error_names_it", || {
        if is_installed("libnvrtc") {
            return;
        }
        Emulator::load_without_compiler(FOLDER);
        contains(
            &refused(0),
            &[
                "no NVRTC",
                "libnvrtc.so.13, libnvrtc.so.12",
                "LD_LIBRARY_PATH (not set) and the system's folders",
                "nvidia-cuda-nvrtc-cu12",
            ],
        );
        assert!(Device::best().reason.is_some());
    });
}

#[test]
fn a_driver_that_is_too_old_is_named_with_what_is_needed() {
    alone(
        "a_driver_that_is_too_old_is_named_with_what_is_needed",
        || {
            Emulator::load(FOLDER).set_driver_version(11_080);
            contains(&refused(0), &["driver is for CUDA 11.8", "need 12.0"]);
        },
    );
}

#[test]
fn a_driver_that_is_older_than_nvrtc_is_named_with_both() {
    alone(
        "a_driver_that_is_older_than_nvrtc_is_named_with_both",
        || {
            let emulator = Emulator::load(FOLDER);
            emulator.set_compiler_version(13);
            contains(
                &refused(0),
                &[
                    "driver is for CUDA 12.8",
                    "kernels of NVRTC 13",
                    "need 13.0",
                ],
            );
        },
    );
}

#[test]
fn a_card_that_is_too_old_is_named_with_what_is_needed() {
    alone(
        "a_card_that_is_too_old_is_named_with_what_is_needed",
        || {
            Emulator::load(FOLDER).set_capability(75);
            contains(
                &refused(0),
                &["emulated device has compute capability 7.5", "need 8.0"],
            );
        },
    );
}

#[test]
fn a_device_that_is_not_there_is_named_with_how_many_there_are() {
    alone(
        "a_device_that_is_not_there_is_named_with_how_many_there_are",
        || {
            let emulator = Emulator::load(FOLDER);
            contains(
                &refused(7),
                &["no CUDA device 7", "sees 1", "CUDA_VISIBLE_DEVICES"],
            );
            emulator.set_devices(0);
            contains(&refused(0), &["no CUDA device 0", "sees 0"]);
            let best = Device::best();
            contains(&best.to_string(), &["CPU, since", "sees 0"]);
        },
    );
}

#[test]
fn the_device_that_is_asked_for_is_opened() {
    alone("the_device_that_is_asked_for_is_opened", || {
        let emulator = Emulator::load(FOLDER);
        emulator.set_devices(2);
        let device = "cuda:1".parse::<DeviceChoice>().unwrap().open().unwrap();
        assert_eq!(device.to_string(), "emulated device (cuda:1, sm_80)");
        let best = Device::best();
        assert!(best.reason.is_none());
        assert_eq!(best.to_string(), "emulated device (cuda:0, sm_80)");
    });
}

#[test]
fn too_little_memory_for_a_trainer_is_an_error_with_sizes() {
    alone(
        "too_little_memory_for_a_trainer_is_an_error_with_sizes",
        || {
            let emulator = Emulator::load(FOLDER);
            let device = Device::cuda(0).unwrap();
            emulator.set_memory(emulator.memory_used() + 100_000);
            let model = Cpu::default().build_module::<Bc, f32>();
            let config = Config {
                batch: 8,
                ..Config::cifar()
            };
            let refused = Trainer::on(model, config, &device);
            let error = refused.err().expect("an error");
            assert!(matches!(
                cause(&error),
                Some(CudaError::OutOfMemory { free: 100_000, .. })
            ));
            let error = error.to_string();
            // The requested memory is what the options said before there was a device.
            let bytes = CudaOptions::for_batch(8).bytes(&Bc::PLAN);
            contains(
                &error,
                &[
                    &format!("no memory for {bytes} bytes on emulated device"),
                    "(100000 are free)",
                ],
            );
        },
    );
}

#[test]
fn a_trainer_on_a_device_is_as_its_settings_say() {
    alone("a_trainer_on_a_device_is_as_its_settings_say", || {
        let emulator = Emulator::load(FOLDER);
        let device = Device::cuda(0).unwrap();
        let mut sizes = Vec::new();
        for precision in [Precision::F32, Precision::Bf16] {
            for recompute in [Recompute::Nothing, Recompute::Bottlenecks] {
                let model = Cpu::default().build_module::<Bc, f32>();
                let config = Config {
                    batch: 8,
                    accumulation: 2,
                    precision,
                    recompute,
                    ..Config::cifar()
                };
                let mut trainer = None;
                let calls = emulator.calls(|| {
                    trainer = Some(Trainer::on(model, config, &device).unwrap());
                });
                let allocated = calls.iter().filter(|call| call.kind == Kind::Allocation);
                let allocated: u64 = allocated.map(|call| call.bytes).sum();
                // Precision and recomputation show in the memory that is taken, for a piece.
                let options = CudaOptions {
                    precision,
                    recompute,
                    ..CudaOptions::for_batch(4)
                };
                assert_eq!(allocated, options.bytes(&Bc::PLAN) as u64);
                sizes.push(allocated);
            }
        }
        sizes.sort_unstable();
        sizes.dedup();
        assert_eq!(sizes.len(), 4, "each setting takes another size");
    });
}

#[test]
fn a_network_is_frozen_on_either_device_by_one_call() {
    alone("a_network_is_frozen_on_either_device_by_one_call", || {
        Emulator::load(FOLDER);
        let mut net = Cpu::default().build_module::<Bc, f32>();
        random::state(&Bc::PLAN, 7).store_into(&mut net).unwrap();
        let (pixels, _) = random::batch(&Bc::PLAN, 2, 8);
        let options = FrozenOptions {
            threads: 1,
            ..FrozenOptions::for_batch(2)
        };
        let [found, expected] = [Device::cuda(0).unwrap(), Device::Cpu].map(|device| {
            let mut frozen = net.freeze_on(&device, options).unwrap();
            assert_eq!((frozen.capacity(), frozen.plan()), (2, &Bc::PLAN));
            assert!(frozen.bytes() > 0);
            let is_on_cpu = matches!(frozen, Frozen::Cpu(_));
            assert_eq!(is_on_cpu, matches!(device, Device::Cpu));
            frozen.infer(Pixels::Nchw(&pixels), 2).unwrap().to_vec()
        });
        let mut compare = Comparison::within(TOLERANCE);
        compare.add("logits", &found, &expected);
        compare.assert("bc");
    });
}

#[test]
fn ranks_have_a_device_each_and_the_best_is_not_theirs_to_choose() {
    alone(
        "ranks_have_a_device_each_and_the_best_is_not_theirs_to_choose",
        || {
            Emulator::load(FOLDER).set_devices(2);
            let place = Ranks {
                rank: 5,
                world_size: 6,
                local_rank: 1,
                local_world_size: 2,
                master: "node0".into(),
                port: 29_500,
                secret: Secret::none(),
            };
            let open = |choice: &str| choice.parse::<DeviceChoice>().unwrap().open_for(&place);
            let device = open("cuda").unwrap().to_string();
            assert_eq!(device, "emulated device (cuda:1, sm_80)");
            let none = open("cuda:1").err().unwrap().to_string();
            contains(&none, &["no CUDA device 2", "sees 2"]);
            let best = open("best").err().unwrap().to_string();
            contains(&best, &["one kind", "ask for `cuda` or `cpu`"]);
            assert_eq!(open("cpu").unwrap().to_string(), "CPU");
        },
    );
}

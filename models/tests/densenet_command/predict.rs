//! `densenet predict`.

use std::fs;

use densenet_models::CLOTHES_BC;
use densenet_runtime::data::{Dataset, idx};
use densenet_runtime::weights::State;
use tempfile::TempDir;

use crate::{SPEC, densenet, numbers, run, support, with_pictures};

/// On an emulated device, with the kernels that other tests of this network have compiled.
#[test]
fn on_a_cuda_device_it_says_what_it_says_on_the_cpu() {
    let folder = with_pictures();
    let folder = folder.path();
    let words = "blocks: [3, 2, 2], k: 4, theta: 0.5, bottleneck, stem: cifar, init: 8, \
                 input: [3, 13, 13], classes: 10";
    let plan = densenet_spec::ParsedSpec::parse(words).unwrap().plan;
    let weights = folder.join("weights.safetensors");
    State::initial(&plan, 3).write(&plan, weights).unwrap();
    let emulator = cuda_emulator::build(&cuda_emulator::folder());
    let emulator = emulator.unwrap_or_else(|error| panic!("{error}"));
    let kernels = cuda_emulator::folder().join("kernels");
    fs::create_dir_all(&kernels).unwrap();
    std::os::unix::fs::symlink(kernels, folder.join("densenet")).unwrap();
    let [cuda, cpu] = ["cuda", "cpu"].map(|device| {
        let model = [
            "predict",
            "--weights",
            "weights.safetensors",
            "--spec",
            words,
        ];
        let asked = [
            "--format",
            "csv",
            "--batch-size",
            "8",
            "--device",
            device,
            "data/val",
        ];
        let mut command = densenet(folder, &[&model[..], &asked].concat());
        command.env("LD_LIBRARY_PATH", &emulator);
        command.env("XDG_CACHE_HOME", folder);
        let [said, _] = support::said(command.output().unwrap());
        numbers(&said, 10)
    });
    assert_eq!(cuda.len(), 20);
    for (cuda, cpu) in cuda.iter().flatten().zip(cpu.iter().flatten()) {
        assert!((cuda - cpu).abs() < 1e-4, "{cuda}, not {cpu}");
    }
}

#[test]
fn a_picture_that_cannot_be_read_is_reported_and_the_others_are_still_asked_about() {
    let folder = with_pictures();
    let folder = folder.path();
    let words = format!("{SPEC}, classes: 10");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    State::initial(&plan, 3)
        .write(&plan, folder.join("weights.safetensors"))
        .unwrap();
    fs::write(folder.join("broken.jpg"), b"no picture").unwrap();
    let list = "broken.jpg\n";
    fs::write(folder.join("list.txt"), list).unwrap();
    let arguments = [
        "predict",
        "--weights",
        "weights.safetensors",
        "--input",
        "32",
    ];
    let asked = ["--format", "csv", "--list", "list.txt", "data/val"];
    let output = run(folder, &[&arguments[..], &asked].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("broken.jpg is not"), "{errors}");
    assert!(
        errors.ends_with("error: 1 of 21 pictures could not be read\n"),
        "{errors}"
    );
    // A line of names, and one for each picture.
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 21);
}

/// The first four test images of Fashion-MNIST, as pictures.
#[test]
fn the_trained_weights_in_the_repository_tell_clothes_apart() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/fashion-mnist");
    let (_, test) = idx::train_and_test(data, &idx::FASHION).unwrap();
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let pictures = ["0.pgm", "1.pgm", "2.pgm", "3.pgm"];
    for (image, picture) in pictures.into_iter().enumerate() {
        let mut pixels = vec![0; 784];
        test.load(image, None, &mut pixels).unwrap();
        let file = [b"P5 28 28 255\n", &pixels[..]].concat();
        fs::write(folder.join(picture), file).unwrap();
    }
    let arguments = ["predict", "--weights", CLOTHES_BC, "--input", "28"];
    let view = ["--crop-pct", "1", "--format", "csv"];
    let output = run(folder, &[&arguments[..], &view, &pictures].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    let lines = said.lines().skip(1);
    let decisions: Vec<_> = lines.filter_map(|line| line.rsplit(',').next()).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    let clothes = ["Ankle boot", "Pullover", "Trouser", "Trouser"];
    assert_eq!(decisions, clothes, "{said}{errors}");
}

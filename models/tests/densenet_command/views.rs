//! Preprocessing and augmentation: as requested, and in later commands as in the run.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use densenet_runtime::cpu::{Frozen, FrozenOptions};
use densenet_runtime::data::{
    Augmentation, Crops, Dataset, EvaluationCrop, ImageFolder, Interpolation, Jitter, Loader, Mix,
    Pictures, Policy, RandomResizedCrop,
};
use densenet_runtime::train::{Config, PlanTrainer};
use densenet_runtime::weights::State;
use serde_json::Value;

use crate::{
    SMALL, SPEC, last_evaluation, numbers, refusal, run, said, scores, support, train,
    with_pictures,
};

const CHECKPOINT: &str = "run/checkpoint.safetensors";

/// Whether the loss of a run's evaluation is that of `evaluate`, whose network is folded.
fn agree(folder: &Path) -> bool {
    agrees_with(folder, "run")
}

fn agrees_with(folder: &Path, run: &str) -> bool {
    let run = last_evaluation(&folder.join(run));
    let [own, run] = [&scores(folder)["loss"], &run["val_loss"]].map(|loss| loss.as_f64().unwrap());
    (own - run).abs() < 1e-5 * run
}

#[test]
fn a_picture_is_shown_as_validation_showed_it_unless_something_else_is_asked_for() {
    let folder = with_pictures();
    let folder = folder.path();
    let view = ["--crop-pct", "0.5", "--interpolation", "bicubic"];
    train(
        folder,
        &[&view[..], &["--steps", "3", "--out", "run"]].concat(),
    );
    let weights = ["--weights", CHECKPOINT];
    let judged = [
        "--data",
        "data",
        "--json",
        "scores.json",
        "--predictions",
        "judged.csv",
    ];
    let evaluate = |more: &[&str]| {
        let arguments = [&["evaluate"], &weights[..], &judged, more].concat();
        let [_, errors] = support::said(run(folder, &arguments));
        (errors, agree(folder))
    };
    assert_eq!(evaluate(&[]), (String::new(), true));
    let asked = ["predict", "--format", "csv", "data/val"];
    let answers = said(folder, &[&asked[..], &weights].concat());
    let table = fs::read_to_string(folder.join("judged.csv")).unwrap();
    assert_eq!(numbers(&answers, 10), numbers(&table, 10));

    for (more, words) in [
        (["--crop-pct", "1"], "--crop-pct was 0.5 and is 1.0"),
        (
            ["--interpolation", "bilinear"],
            "--interpolation was bicubic and is bilinear",
        ),
    ] {
        let (errors, agrees) = evaluate(&more);
        let expected =
            format!("pictures are not preprocessed as in the run of {CHECKPOINT}: {words}\n");
        assert_eq!((errors, agrees), (expected, false));
        let asked = said(folder, &[&asked[..], &weights, &more].concat());
        assert_ne!(numbers(&answers, 10), numbers(&asked, 10));
    }

    // A converted file is the same network with the same preprocessing.
    said(folder, &["convert", CHECKPOINT, "own.pth"]);
    let converted = said(folder, &[&asked[..], &["--weights", "own.pth"]].concat());
    assert_eq!(converted, answers);

    let resume = [
        "train", "--data", "data", "--resume", CHECKPOINT, "--steps", "4",
    ];
    let refused = refusal(
        folder,
        &[&resume[..], &["--crop-pct", "1", "--flip", "0.5"]].concat(),
    );
    assert!(
        refused.contains("--crop-pct was 0.5 and is 1.0; leave"),
        "{refused}"
    );
    let refused = refusal(folder, &[&resume[..], &["--flip", "0.5"]].concat());
    assert!(
        refused.contains("--flip was not given and is 0.5; leave"),
        "{refused}"
    );
    said(folder, &[&resume[..], &view].concat());
    assert_eq!(evaluate(&[]), (String::new(), true));
}

#[test]
fn a_run_from_pretrained_weights_shows_pictures_as_theirs_did_unless_it_is_told_otherwise() {
    let folder = with_pictures();
    let folder = folder.path();
    let before = ["--crop-pct", "0.5", "--interpolation", "bicubic"];
    train(
        folder,
        &[&before[..], &["--steps", "1", "--out", "run"]].concat(),
    );
    for (given, out, words) in [
        (
            &[][..],
            "next",
            "pictures are preprocessed as in the run of run/checkpoint.safetensors: --crop-pct 0.5, --interpolation bicubic\n",
        ),
        (
            &["--crop-pct", "1"][..],
            "other",
            "pictures are not preprocessed as in the run of run/checkpoint.safetensors: --crop-pct was 0.5 and is 1.0\n\
             pictures are preprocessed as in the run of run/checkpoint.safetensors: --interpolation bicubic\n",
        ),
    ] {
        let start = ["--data", "data", "--pretrained", CHECKPOINT];
        let more = ["--steps", "1", "--out", out];
        let line = [&SMALL[..], &start, &more, given].concat();
        let [_, errors] = support::said(run(folder, &line));
        // The progress of the run follows.
        let (before, _) = errors.split_once("epoch ").unwrap();
        assert_eq!(before, words);
        // The run remembers what it did.
        let share = if given.is_empty() { "0.5" } else { "1" };
        let asked = ["--crop-pct", share, "--interpolation", "bicubic"];
        let weights = format!("{out}/checkpoint.safetensors");
        let judged = ["evaluate", "--data", "data", "--json", "scores.json"];
        let line = [&judged[..], &["--weights", &weights], &asked].concat();
        let [_, errors] = support::said(run(folder, &line));
        assert_eq!((errors, agrees_with(folder, out)), (String::new(), true));
    }
}

#[test]
fn ten_crops_are_judged_by_the_mean_of_their_logits() {
    let folder = with_pictures();
    let folder = folder.path();
    let words = format!("{SPEC}, classes: 10");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    let state = State::initial(&plan, 3);
    state.write(&plan, folder.join("own.safetensors")).unwrap();
    let asked = ["evaluate", "--weights", "own.safetensors", "--input", "32"];
    let judged = ["--data", "data", "--predictions", "judged.csv"];
    let evaluate = |more: &[&str]| {
        said(folder, &[&asked[..], &judged, more].concat());
        numbers(&fs::read_to_string(folder.join("judged.csv")).unwrap(), 10)
    };
    let found = evaluate(&["--crops", "10"]);

    // These views are torchvision's TenCrop's.
    let images = ImageFolder::open(folder.join("data/val"), [32, 32]).unwrap();
    let images = images.evaluated(Crops::Ten);
    let options = FrozenOptions::for_batch(10);
    let mut network = Frozen::new(&plan, &state.parameters, &state.running, options).unwrap();
    assert_eq!(found.len(), images.len());
    for (index, found) in found.iter().enumerate() {
        let mut bytes = vec![0; 10 * 3 * 32 * 32];
        images.load(index, None, &mut bytes).unwrap();
        let pixels = images.normalization().pixels(&bytes);
        let logits = network.infer(pixels, 10).unwrap();
        let mean = |class: usize| {
            let own = logits.iter().skip(class).step_by(10);
            own.map(|&logit| f64::from(logit)).sum::<f64>() / 10.0
        };
        let powers: Vec<f64> = (0..10).map(|class| mean(class).exp()).collect();
        let sum: f64 = powers.iter().sum();
        for (found, power) in found.iter().zip(powers) {
            assert!(
                (found - power / sum).abs() < 1e-6,
                "{found} {}",
                power / sum
            );
        }
    }
    let one = evaluate(&[]);
    assert_eq!(one, evaluate(&["--crops", "1"]));
    assert_ne!(one, found);
}

/// A grey picture of 16 bits, whose samples are multiples of those of a picture of 8 bits.
fn deepen(from: &Path, to: &Path, times: u16) {
    let picture = densenet_runtime::data::read(from).unwrap();
    let mut bytes = format!("P5 {} {} 65535\n", picture.width, picture.height).into_bytes();
    for pixel in picture.pixels.chunks_exact(3) {
        bytes.extend((u16::from(pixel[1]) * times).to_be_bytes());
    }
    fs::write(to, bytes).unwrap();
}

/// Trains the small network on grey pictures.
const GREY: [&str; 7] = [
    "train",
    "--spec",
    SPEC,
    "--input",
    "1x32x32",
    "--batch-size",
    "8",
];

/// Twice the same grey pictures: in `dark` of samples up to 2550, in `full` of samples up to 255 * 257.
fn dark_and_full(folder: &Path) {
    for (name, times) in [("dark", 10), ("full", 257)] {
        for set in ["train", "val"] {
            for class in fs::read_dir(folder.join("data").join(set)).unwrap() {
                let class = class.unwrap();
                let to = folder.join(name).join(set).join(class.file_name());
                fs::create_dir_all(&to).unwrap();
                for number in 0..2 {
                    let from = class.path().join(format!("{number:04}.jpg"));
                    deepen(&from, &to.join(format!("{number}.pgm")), times);
                }
            }
        }
    }
}

#[test]
fn samples_of_a_range_are_shown_in_it_by_all_commands() {
    let folder = with_pictures();
    let folder = folder.path();
    dark_and_full(folder);
    let range = [
        "--data", "dark", "--range", "0", "2550", "--steps", "2", "--out", "run",
    ];
    said(folder, &[&GREY[..], &range].concat());
    let weights = ["--weights", CHECKPOINT];
    let json = ["--json", "scores.json"];
    let evaluate = ["evaluate", "--data", "dark"];
    said(folder, &[&evaluate[..], &weights, &json].concat());
    assert!(agree(folder));

    let predict = |more: &[&str]| {
        let asked = ["predict", "--format", "csv"];
        numbers(&said(folder, &[&asked[..], &weights, more].concat()), 10)
    };
    let dark = predict(&["dark/val"]);
    let full = predict(&["full/val", "--range", "0", "65535"]);
    assert_eq!(dark.len(), 20);
    for (dark, full) in dark.iter().flatten().zip(full.iter().flatten()) {
        assert!((dark - full).abs() < 1e-5, "{dark} {full}");
    }
    assert_ne!(dark, predict(&["full/val"]));
}

#[test]
fn a_run_from_pretrained_weights_takes_their_range_of_samples_unless_it_is_told_otherwise() {
    let folder = with_pictures();
    let folder = folder.path();
    dark_and_full(folder);
    let range = ["--data", "dark", "--range", "0", "2550"];
    let short = ["--steps", "1", "--out", "run"];
    said(folder, &[&GREY[..], &range, &short].concat());
    let as_before = "pictures are preprocessed as in the run of run/checkpoint.safetensors: --range 0.0 2550.0\n";
    let otherwise = "pictures are not preprocessed as in the run of run/checkpoint.safetensors: \
                     --range was 0.0 2550.0 and is 0.0 65535.0\n";
    let whole = ["--range", "0", "65535"];
    let cases = [
        ("dark", "as_before", &[][..], as_before),
        ("full", "otherwise", &whole[..], otherwise),
        ("full", "too_bright", &[][..], as_before),
    ];
    let losses = cases.map(|(data, out, given, words)| {
        let start = ["--data", data, "--pretrained", CHECKPOINT];
        let short = ["--steps", "1", "--out", out];
        let [_, errors] = support::said(run(folder, &[&GREY[..], &start, &short, given].concat()));
        // The progress of the run follows.
        let (before, _) = errors.split_once("epoch ").unwrap();
        assert_eq!(before, words);
        let last = last_evaluation(&folder.join(out));
        last["val_loss"].as_f64().unwrap()
    });
    // Samples of either range are the same pictures, and in the range of the others they are not.
    let [dark, full, too_bright] = losses;
    assert!((dark - full).abs() < 1e-5 * dark, "{dark} {full}");
    assert!(
        (dark - too_bright).abs() > 1e-3 * dark,
        "{dark} {too_bright}"
    );
    // It is remembered.
    let evaluate = ["evaluate", "--data", "dark", "--json", "scores.json"];
    let weights = ["--weights", "as_before/checkpoint.safetensors"];
    said(folder, &[&evaluate[..], &weights].concat());
    assert!(agrees_with(folder, "as_before"));
}

/// The loss of the first step of a run with this augmentation and loading.
fn expected(folder: &Path, augmentation: Augmentation, loading: &dyn Fn(Loader) -> Loader) -> f64 {
    let config = Config::of_checkpoint(folder.join(CHECKPOINT)).unwrap();
    let pictures = Pictures::sized([32, 32]).unwrap();
    let evaluation = EvaluationCrop {
        interpolation: augmentation.interpolation,
        ..EvaluationCrop::default()
    };
    let pictures = pictures
        .augmented(augmentation)
        .unwrap()
        .evaluated(evaluation);
    let set = Arc::new(ImageFolder::open_as(folder.join("data/train"), pictures).unwrap());
    let words = format!("{SPEC}, classes: 10");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    let loader = Loader::training(set.clone(), config.batch).unwrap();
    let loader = loading(loader.seeded(config.seed));
    let batch = loader.epoch(0).next().unwrap().unwrap();
    let start = State::initial(&plan, config.seed);
    let mut trainer = PlanTrainer::new("DenseNet", plan, &start, config).unwrap();
    trainer
        .step(batch.as_batch(set.normalization()))
        .unwrap()
        .loss
}

#[test]
fn pictures_are_varied_and_mixed_as_is_asked_for() {
    let folder = with_pictures();
    let folder = folder.path();
    let usual = Augmentation::default;
    let (crop, jitter) = (RandomResizedCrop::default(), Jitter::default());
    let unmixed = Mix::default;
    let mixed = |mixup, cutmix| Mix { mixup, cutmix };
    let cases: Vec<(&str, Augmentation, Mix)> = vec![
        ("", usual(), unmixed()),
        (
            "--crop-area 0.5 0.75 --crop-aspect 1 1.25",
            Augmentation {
                crop: RandomResizedCrop {
                    area: (0.5, 0.75),
                    aspect: (1.0, 1.25),
                },
                ..usual()
            },
            unmixed(),
        ),
        (
            "--mirror 1 --flip 0.5 --interpolation bicubic",
            Augmentation {
                crop,
                mirror: 1.0,
                flip: 0.5,
                interpolation: Interpolation::Bicubic,
                ..usual()
            },
            unmixed(),
        ),
        (
            "--rotate 30 --translate 0.25 --zoom 0.5 1.5 --shear 10 --fill 0.5",
            Augmentation {
                rotation: 30.0,
                translation: [0.25; 2],
                scale: [0.5, 1.5],
                shear: 10.0,
                fill: 0.5,
                ..usual()
            },
            unmixed(),
        ),
        (
            "--brightness 0.5 --contrast 0.25",
            Augmentation {
                jitter: Jitter {
                    brightness: 0.5,
                    contrast: 0.25,
                    ..jitter
                },
                ..usual()
            },
            unmixed(),
        ),
        (
            "--saturation 0.75 --hue 0.25",
            Augmentation {
                jitter: Jitter {
                    saturation: 0.75,
                    hue: 0.25,
                    ..jitter
                },
                ..usual()
            },
            unmixed(),
        ),
        (
            "--auto-augment trivial",
            Augmentation {
                policy: Policy::TrivialWide,
                ..usual()
            },
            unmixed(),
        ),
        (
            "--auto-augment rand=3,12 --erase 0.75",
            Augmentation {
                policy: Policy::Rand {
                    operations: 3,
                    magnitude: 12,
                },
                erase: 0.75,
                ..usual()
            },
            unmixed(),
        ),
        ("--mixup 0.5", usual(), mixed(0.5, 0.0)),
        ("--cutmix 1", usual(), mixed(0.0, 1.0)),
        ("--mixup 1 --cutmix 0.5", usual(), mixed(1.0, 0.5)),
    ];
    let mut losses = Vec::new();
    for (options, augmentation, mix) in cases {
        let options: Vec<_> = options.split_whitespace().collect();
        train(
            folder,
            &[&options[..], &["--steps", "1", "--out", "run"]].concat(),
        );
        let metrics = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
        let first: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
        let (found, expected) = (
            first["loss"].as_f64().unwrap(),
            expected(folder, augmentation, &|loader| {
                loader.mixed(mix, 10).unwrap()
            }),
        );
        assert!(
            (found - expected).abs() < 1e-5,
            "{options:?}: {found}, not {expected}"
        );
        losses.push(found);
    }
    let usual = losses.remove(0);
    assert!(
        losses.iter().all(|loss| (loss - usual).abs() > 1e-4),
        "{usual} {losses:?}"
    );
}

#[test]
fn pictures_are_drawn_for_balance_where_it_is_asked_for_and_a_resumed_run_keeps_it() {
    let folder = with_pictures();
    let folder = folder.path();
    let asked = ["--sampling", "balanced", "--steps", "1", "--out", "run"];
    train(folder, &asked);
    let metrics = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    let first: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    let found = first["loss"].as_f64().unwrap();
    let [balanced, each] = [true, false].map(|is_balanced| {
        expected(folder, Augmentation::default(), &|loader| {
            if is_balanced {
                loader.balanced()
            } else {
                loader
            }
        })
    });
    assert!((found - balanced).abs() < 1e-5, "{found}, not {balanced}");
    assert!((found - each).abs() > 1e-4, "{found}, as {each}");
    let resume = ["train", "--data", "data", "--resume", CHECKPOINT];
    let otherwise = ["--steps", "2", "--sampling", "each"];
    let refused = refusal(folder, &[&resume[..], &otherwise].concat());
    let words = "--sampling was balanced and is each; leave";
    assert!(refused.contains(words), "{refused}");
    said(folder, &[&resume[..], &["--steps", "2"]].concat());
}

#[test]
fn tensorboards_files_are_in_the_runs_folder_or_where_they_are_asked_for() {
    let folder = with_pictures();
    let folder = folder.path();
    for (options, at) in [
        (&["--tensorboard"][..], "run/tensorboard"),
        (&["--tensorboard", "boards/one"][..], "boards/one"),
    ] {
        train(
            folder,
            &[options, &["--steps", "1", "--out", "run"]].concat(),
        );
        let files: Vec<_> = fs::read_dir(folder.join(at)).unwrap().collect();
        assert_eq!(files.len(), 1);
        let bytes = fs::read(files[0].as_ref().unwrap().path()).unwrap();
        let tag = b"val/top1_error";
        assert!(bytes.windows(tag.len()).any(|part| part == tag));
    }
    assert!(
        !folder.join("run/tensorboard").exists(),
        "the first run's files were kept elsewhere"
    );
}

#[test]
fn validation_keeps_the_bits_that_training_keeps() {
    let folder = with_pictures();
    let folder = folder.path();
    dark_and_full(folder);
    let classes = fs::read_dir(folder.join("dark/val")).unwrap();
    let class = classes.map(|class| class.unwrap().file_name()).min();
    let class = class.unwrap();
    let first = folder.join("dark/val").join(&class).join("0.pgm");
    let from = folder.join("data/val").join(&class).join("0000.jpg");
    let loss = |out: &str| {
        let run = ["--data", "dark", "--steps", "1", "--out", out];
        said(folder, &[&GREY[..], &run].concat());
        let last = last_evaluation(&folder.join(out));
        last["val_loss"].as_f64().unwrap()
    };
    deepen(&from, &first, 257);
    let deep = loss("deep");
    // The same picture in 8 bits.
    let picture = densenet_runtime::data::read(&from).unwrap();
    let (width, height) = (picture.width, picture.height);
    let mut bytes = format!("P5 {width} {height} 255\n").into_bytes();
    bytes.extend(picture.pixels.chunks_exact(3).map(|pixel| pixel[1]));
    fs::write(&first, bytes).unwrap();
    let mixed = loss("mixed");
    assert!((mixed - deep).abs() < 1e-9, "{mixed} {deep}");
}

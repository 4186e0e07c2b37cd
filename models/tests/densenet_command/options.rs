//! The options of training: each does what it says.

use std::fs;
use std::path::Path;

use densenet_runtime::train::{Algorithm, BestBy, Config, Decay, Freeze, PartRate};
use densenet_runtime::weights::{State, TensorFile, Unexpected};

use crate::{
    SMALL, TABLE, evaluations, last_evaluation, plan_in, said, train, with_pictures, with_table,
};

/// A step whose size is known: a constant rate, no decay.
const PLAIN: [&str; 12] = [
    "--steps",
    "1",
    "--out",
    "run",
    "--schedule",
    "constant",
    "--warmup",
    "0",
    "--lr",
    "0.1",
    "--weight-decay",
    "0",
];

fn config(folder: &Path) -> Config {
    Config::of_checkpoint(folder.join("run/checkpoint.safetensors")).unwrap()
}

fn state(file: &Path) -> State {
    let tensors = TensorFile::read(file).unwrap();
    State::from_file(&plan_in(file), &tensors, Unexpected::Ignore).unwrap()
}

/// The weights that a run in the folder begins with, and those after it.
fn before_and_after(folder: &Path, more: &[&str]) -> [State; 2] {
    let still = [
        "--lr",
        "0",
        "--weight-decay",
        "0",
        "--steps",
        "1",
        "--out",
        "still",
    ];
    train(folder, &still);
    train(folder, more);
    let [before, after] =
        ["still", "run"].map(|run| state(&folder.join(run).join("checkpoint.safetensors")));
    [before, after]
}

#[test]
fn a_run_has_the_settings_that_are_asked_for_and_resumes_to_the_same_bits() {
    let folder = with_pictures();
    let folder = folder.path();
    let settings = [
        "--optimizer",
        "adamw",
        "--schedule",
        "one-cycle",
        "--cycle-momentum",
        "--warmup",
        "0.5",
        "--weight-decay",
        "0.01",
        "--no-decay",
        "--clip",
        "0.5",
        "--ema",
        "0.75",
        "--part-rate",
        "denseblock1=0.1,classifier=2",
        "--freeze",
        "conv0",
        "--label-smoothing",
        "0.05",
        "--best-by",
        "loss",
        "--mixup",
        "0.2",
        "--rotate",
        "10",
        "--erase",
        "0.5",
        "--crop-pct",
        "0.75",
        "--lr",
        "0.003",
        "--epochs",
        "2",
    ];
    train(folder, &[&settings[..], &["--out", "whole"]].concat());
    train(
        folder,
        &[&settings[..], &["--steps", "7", "--out", "run"]].concat(),
    );
    let own = config(folder);
    assert_eq!(own.optimizer, Algorithm::adamw());
    assert!(
        matches!(
            own.schedule.decay,
            Decay::OneCycle {
                momentum: Some([0.85, 0.95]),
                ..
            }
        ),
        "{:?}",
        own.schedule
    );
    assert_eq!(
        (own.schedule.warmup, own.schedule.learning_rate),
        (0.5, 0.003)
    );
    assert_eq!((own.weight_decay, own.no_decay), (0.01, true));
    assert_eq!((own.clip, own.ema), (Some(0.5), Some(0.75)));
    let rates = [("denseblock1", 0.1), ("classifier", 2.0)];
    let rates = rates.map(|(part, rate)| PartRate {
        part: part.to_string(),
        rate,
    });
    assert_eq!(own.part_rates, rates);
    assert_eq!(own.freeze, Freeze::parts(["conv0".to_string()]));
    assert_eq!((own.label_smoothing, own.best_by), (0.05, BestBy::Loss));

    let resume = ["--resume", "run/checkpoint.safetensors"];
    said(
        folder,
        &[&["train", "--data", "data"], &resume[..]].concat(),
    );
    let [whole, run] = ["whole", "run"].map(|run| {
        let file = folder.join(run).join("checkpoint.safetensors");
        TensorFile::read(file).unwrap()
    });
    assert_eq!(whole.names(), run.names());
    assert!(whole.names().contains(&"ema.classifier.weight".to_string()));
    for name in whole.names() {
        let [whole, run] = [&whole, &run].map(|file| file.floats(&name).unwrap());
        assert_eq!(whole, run, "{name}");
    }
}

#[test]
fn frozen_parts_stay_and_their_statistics_with_them() {
    let folder = with_pictures();
    let folder = folder.path();
    let before_the_second_block = |name: &str| {
        let of = ["conv0", "denseblock1", "transition1"];
        of.iter().any(|part| name.contains(part))
    };
    let layer_or_norm = |name: &str| name.contains("1.denselayer1.") || name.contains("norm");
    for (freeze, is_frozen) in [
        (
            ["--freeze", "features"],
            &(|name: &str| !name.contains("classifier")) as &dyn Fn(&str) -> bool,
        ),
        (["--freeze-until", "denseblock2"], &before_the_second_block),
        (
            ["--freeze", "denseblock1.denselayer1,norms"],
            &layer_or_norm,
        ),
    ] {
        let [before, after] = before_and_after(folder, &[&PLAIN[..], &freeze].concat());
        let plan = plan_in(&folder.join("run/checkpoint.safetensors"));
        let initial = State::initial(&plan, 0);
        for own in plan.parameters() {
            let name = &own.torchvision;
            let [before, initial, after] =
                [&before, &initial, &after].map(|state| state.of_parameter(&own));
            if own.role.is_trainable() {
                assert_eq!(before == after, is_frozen(name), "{freeze:?}: {name}");
            } else {
                assert_eq!(initial == after, is_frozen(name), "{freeze:?}: {name}");
            }
        }
    }
}

#[test]
fn clipped_gradients_make_a_step_of_a_known_length() {
    let folder = with_pictures();
    let [before, after] =
        before_and_after(folder.path(), &[&PLAIN[..], &["--clip", "0.01"]].concat());
    let moved = before.parameters.iter().zip(&after.parameters);
    let length = moved
        .map(|(a, b)| f64::from(b - a).powi(2))
        .sum::<f64>()
        .sqrt();
    // Nesterov's first step is 1 + momentum gradients long.
    let expected = 0.1 * 1.9 * 0.01;
    assert!((length / expected - 1.0).abs() < 1e-3, "{length}");
}

#[test]
fn a_part_has_its_share_of_the_rate_and_what_is_not_to_decay_does_not() {
    let folder = with_pictures();
    let folder = folder.path();
    let [before, after] =
        before_and_after(folder, &[&PLAIN[..], &["--part-rate", "conv0=0"]].concat());
    let plan = plan_in(&folder.join("run/checkpoint.safetensors"));
    for own in plan
        .parameters()
        .iter()
        .filter(|own| own.role.is_trainable())
    {
        let is_still = before.of_parameter(own) == after.of_parameter(own);
        let expected = own.torchvision == "features.conv0.weight";
        assert_eq!(is_still, expected, "{}", own.torchvision);
    }

    // Gradients of length zero: only the decay is left.
    let decays = ["--clip", "1e-12", "--weight-decay", "0.5"];
    let plain = &PLAIN[..10];
    for (more, gamma) in [(&[][..], 1.0 - 0.1 * 0.5 * 1.9), (&["--no-decay"][..], 1.0)] {
        let [before, after] = before_and_after(folder, &[plain, &decays, more].concat());
        for own in plan.parameters() {
            let is_gamma = own.torchvision.ends_with("norm0.weight");
            if is_gamma || own.torchvision.ends_with("conv0.weight") {
                let share = if is_gamma {
                    gamma
                } else {
                    1.0 - 0.1 * 0.5 * 1.9
                };
                let values = before
                    .of_parameter(&own)
                    .iter()
                    .zip(after.of_parameter(&own));
                for (before, after) in values {
                    assert!((before * share - after).abs() < 1e-5, "{}", own.torchvision);
                }
            }
        }
    }
}

#[test]
fn a_patient_run_ends_when_evaluations_stop_improving() {
    let folder = with_pictures();
    // Nothing moves.
    let still = ["--lr", "0", "--freeze", "features", "--patience", "2"];
    train(
        folder.path(),
        &[&still[..], &["--epochs", "9", "--out", "run"]].concat(),
    );
    assert_eq!(evaluations(&folder.path().join("run")).len(), 3);
}

#[test]
fn the_best_is_so_by_the_score_that_is_asked_for() {
    let folder = with_table();
    let folder = folder.path();
    let run = [&SMALL[..], &["--epochs", "4", "--out", "run"]].concat();
    for (name, words) in [
        ("loss", "loss"),
        ("average_precision", "mean average precision"),
    ] {
        let shown = said(folder, &[&run[..], &TABLE, &["--best-by", name]].concat());
        let all = evaluations(&folder.join("run"));
        let key = if name == "loss" { "val_loss" } else { name };
        let score = |of: &serde_json::Value| of[key].as_f64().unwrap();
        let best = all.iter().map(score).reduce(match name {
            "loss" => f64::min,
            _ => f64::max,
        });
        let best = best.unwrap();
        let step = &all.iter().find(|own| score(own) == best).unwrap()["step"];
        let expected = format!("best: {words} {best:.4} after step {step}");
        assert!(shown.contains(&expected), "{expected}: {shown}");
        let best = Config::of_checkpoint(folder.join("run/best.safetensors")).unwrap();
        assert_eq!(best.best_by, name.parse().unwrap());
    }
    assert!(last_evaluation(&folder.join("run"))["auroc"].is_f64());
}

#[test]
fn rare_classes_weigh_more_where_that_is_asked_for() {
    let folder = with_table();
    let folder = folder.path();
    let run = [&SMALL[..], &["--steps", "1", "--out", "run"]].concat();
    // Half of the pictures of the first class; scikit-learn's `compute_class_weight("balanced")`.
    let mut classes: Vec<_> = fs::read_dir(folder.join("data/train"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    classes.sort();
    for number in ["0000.jpg", "0001.jpg"] {
        fs::remove_file(classes[0].join(number)).unwrap();
    }
    said(
        folder,
        &[&run[..], &["--data", "data", "--balance"]].concat(),
    );
    let weights = config(folder).loss_weights.classes;
    assert_eq!(weights.len(), 10);
    assert!(
        (weights[0] - 38.0 / (10.0 * 2.0)).abs() < 1e-6,
        "{weights:?}"
    );
    assert!(
        (weights[1] - 38.0 / (10.0 * 4.0)).abs() < 1e-6,
        "{weights:?}"
    );

    // Of 40 labels three are yes, of others half: how many there are of no for one of yes.
    let mut lines = vec!["path,rare,even".to_string()];
    for class in &classes[1..] {
        for number in 0..4 {
            let class = class.file_name().unwrap().to_str().unwrap();
            let rare = u8::from(lines.len() <= 3);
            lines.push(format!("{class}/{number:04}.jpg,{rare},{}", number % 2));
        }
    }
    fs::write(folder.join("rare.csv"), lines.join("\n")).unwrap();
    let table = [
        "--csv",
        "rare.csv",
        "--root",
        "data/train",
        "--val",
        "rare-val.csv",
    ];
    // Other pictures validate.
    fs::write(
        folder.join("rare-val.csv"),
        "path,rare,even\n../val/none.jpg,0,1\n",
    )
    .unwrap();
    let picture = fs::read_dir(folder.join("data/val"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    fs::copy(
        picture.path().join("0000.jpg"),
        folder.join("data/val/none.jpg"),
    )
    .unwrap();
    said(folder, &[&run[..], &table, &["--balance"]].concat());
    assert_eq!(config(folder).loss_weights.positive, [11.0, 1.0]);

    let by_hand = ["--class-weight", "even=0.5", "--positive-weight", "rare=3"];
    said(folder, &[&run[..], &table, &by_hand].concat());
    let weights = config(folder).loss_weights;
    assert_eq!(
        [weights.classes, weights.positive],
        [[1.0, 0.5], [3.0, 1.0]]
    );
    let both = [&["--balance"][..], &["--positive-weight", "even=2"]].concat();
    said(folder, &[&run[..], &table, &both].concat());
    assert_eq!(config(folder).loss_weights.positive, [11.0, 2.0]);
}

#[test]
fn one_cycle_rises_over_three_tenths_of_a_run_as_in_pytorch() {
    let folder = with_pictures();
    let folder = folder.path();
    let cycle = [
        "--schedule",
        "one-cycle",
        "--epochs",
        "10",
        "--steps",
        "1",
        "--out",
        "run",
    ];
    train(folder, &cycle);
    assert_eq!(config(folder).schedule.warmup, 3.0);
}

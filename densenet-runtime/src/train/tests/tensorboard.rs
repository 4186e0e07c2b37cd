//! Event files, read by a parser of their own that follows TensorBoard's accumulator.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::fit;
use super::*;
use crate::train::{Fit, Metric, Metrics, RunFolder, TensorBoard, lines};

/// Values by tag, each with its step.
type Scalars = BTreeMap<String, Vec<(u64, f32)>>;

/// Takes a number of seven bits a byte.
fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (&byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// The fields of a message: numbers, and the bytes of fields that are not numbers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                fields.push((key >> 3, varint(&mut bytes), &[][..]));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(length);
        fields.push((key >> 3, 0, value));
        bytes = rest;
    }
    fields
}

/// What TensorBoard shows of a folder, and its number of files.
fn shown(folder: &Path) -> (Scalars, usize) {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut scalars = Scalars::new();
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        let mut rest = &bytes[..];
        let mut number = 0;
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let event = fields(&rest[12..12 + length]);
            rest = &rest[12 + length + 4..];
            let of = |field: u64| event.iter().find(|(own, ..)| *own == field);
            let step = of(2).map_or(0, |field| field.1);
            match number {
                0 => assert_eq!(of(3).unwrap().2, b"brain.Event:2"),
                _ => assert!(of(3).is_none()),
            }
            number += 1;
            if let Some((.., log)) = of(7) {
                assert_eq!(fields(log), [(1, 1, &[][..])]);
                for values in scalars.values_mut() {
                    values.retain(|&(before, _)| before < step);
                }
            }
            let Some((.., summary)) = of(5) else { continue };
            for (field, _, value) in fields(summary) {
                assert_eq!(field, 1);
                let value = fields(value);
                let tag = String::from_utf8(value[0].2.to_vec()).unwrap();
                let number = f32::from_le_bytes(value[1].2.try_into().unwrap());
                scalars.entry(tag).or_default().push((step, number));
            }
        }
    }
    (scalars, files.len())
}

/// What a file of metrics says, under TensorBoard's tags.
fn written(file: &Path) -> Scalars {
    let mut scalars = Scalars::new();
    for metric in lines(file).unwrap() {
        let values = match &metric {
            Metric::Step {
                loss,
                learning_rate,
                images_per_s,
                ..
            } => vec![
                ("train/loss", *loss),
                ("train/lr", f64::from(*learning_rate)),
                ("train/images_per_s", *images_per_s),
            ],
            Metric::Evaluation {
                top1_error,
                top5_error,
                val_loss,
                ..
            } => vec![
                ("val/loss", *val_loss),
                ("val/top1_error", top1_error.unwrap()),
                ("val/top5_error", top5_error.unwrap()),
            ],
            other => panic!("{other:?}"),
        };
        for (tag, value) in values {
            let values = scalars.entry(tag.to_owned()).or_default();
            values.push((metric.step(), value as f32));
        }
    }
    scalars
}

/// The values under the tags that a file of metrics has.
fn of_tags(scalars: &Scalars, tags: &Scalars) -> Scalars {
    let mut scalars = scalars.clone();
    scalars.retain(|tag, _| tags.contains_key(tag));
    scalars
}

fn observers(folder: &RunFolder, step: u64) -> Vec<Box<dyn Observer>> {
    vec![
        Box::new(Metrics::create(folder.metrics(), step).unwrap()),
        Box::new(TensorBoard::new(folder.tensorboard())),
    ]
}

#[test]
fn tensorboard_shows_what_the_metrics_say_of_a_run_that_was_resumed() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(temporary.path()).unwrap();
    let images = Images::new(40, 8);
    let validation = Images::new(20, 8);
    let fit = Fit {
        checkpoint: Some(folder.checkpoint()),
        checkpoint_every: Some(3),
        ..Fit::default()
    };
    let mut runner = self::runner(config());
    let mut first = observers(&folder, 0);
    fit::run(&mut runner, &images, &validation, &fit, &mut first).unwrap();
    let (before, files) = shown(&folder.tensorboard());
    let metrics = written(&folder.metrics());
    assert_eq!((of_tags(&before, &metrics), files), (metrics, 1));

    // Goes on from a step in the middle, as after a kill.
    let mut runner = self::runner(config());
    let stopped = Fit {
        steps: Some(7),
        ..Fit::default()
    };
    fit::run(&mut runner, &images, &validation, &stopped, &mut ()).unwrap();
    let mut second = observers(&folder, 7);
    fit::run(&mut runner, &images, &validation, &fit, &mut second).unwrap();
    let (after, files) = shown(&folder.tensorboard());
    let metrics = written(&folder.metrics());
    assert_eq!((of_tags(&after, &metrics), files), (metrics, 2));
    assert_eq!(after["train/loss"], before["train/loss"]);
}

#[test]
fn a_new_run_in_an_old_folder_replaces_what_was_shown() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(temporary.path()).unwrap();
    let images = Images::new(40, 8);
    let mut lengths = Vec::new();
    for steps in [9, 4] {
        let fit = Fit {
            steps: Some(steps),
            ..Fit::default()
        };
        let mut board = TensorBoard::new(folder.tensorboard());
        fit::run(&mut runner(config()), &images, &images, &fit, &mut board).unwrap();
        let (scalars, _) = shown(&folder.tensorboard());
        lengths.push(scalars["train/loss"].len());
    }
    assert_eq!(lengths, [9, 4]);
}

#[test]
fn a_run_folder_keeps_the_events_of_the_run_before() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(temporary.path()).unwrap();
    let images = Images::new(40, 8);
    for _ in 0..2 {
        let mut observers = folder.observers_from(0, "A run").unwrap();
        observers.push(Box::new(TensorBoard::new(folder.tensorboard())));
        fit::run(
            &mut runner(config()),
            &images,
            &images,
            &Fit::default(),
            &mut observers,
        )
        .unwrap();
    }
    let kept = temporary.path().join("previous-1/tensorboard");
    assert_eq!(shown(&kept).1, 1);
    assert_eq!(shown(&folder.tensorboard()).1, 1);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    let taken = temporary.path().join("taken");
    std::fs::write(&taken, []).unwrap();
    let images = Images::new(40, 8);
    let mut board = TensorBoard::new(taken.join("events"));
    let error = fit::run(
        &mut runner(config()),
        &images,
        &images,
        &Fit::default(),
        &mut board,
    );
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains("cannot create") && message.contains("taken/events"),
        "{message}"
    );
}

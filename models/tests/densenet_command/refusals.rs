//! Bad input.

use std::fs;

use densenet_runtime::weights::State;

use crate::{SPEC, refusal, with_pictures};

#[test]
fn bad_input_is_refused_by_what_is_wrong_with_it() {
    let folder = with_pictures();
    let folder = folder.path();
    let plan = densenet_spec::Spec::parse(SPEC).unwrap().plan;
    State::initial(&plan, 3)
        .write(&plan, folder.join("weights.safetensors"))
        .unwrap();
    fs::write(folder.join("damaged.safetensors"), b"no weights").unwrap();
    fs::write(
        folder.join("labels.csv"),
        "path,label\nnone.jpg,cat\nmore.jpg,dog\n",
    )
    .unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    // As they are typed; SPEC and BLOCKS are one word each.
    for (command, expected) in [
        ("train", "--data <DIR>"),
        ("train --data none", "none is missing"),
        (
            "train --data data --model resnet50",
            "unknown preset \"resnet50\"",
        ),
        ("train --data data --spec BLOCKS", "needs `k` (growth rate)"),
        (
            "train --data data --model densenet121 --spec SPEC",
            "cannot be used with",
        ),
        ("train --data data --features-only", "--pretrained <FILE>"),
        ("train --data data --val half", "--val half: it is a share"),
        (
            "train --data data/train --val 1.5",
            "it must be above 0 and below 1",
        ),
        (
            "train --data data --group patient",
            "--group is for a table",
        ),
        (
            "train --csv labels.csv",
            "2 of the 2 pictures in labels.csv are missing in the current folder, such as `none.jpg` (line 2)",
        ),
        ("train --csv labels.csv --labels lable", "lable"),
        (
            "train --data data --input 7 --model densenet121",
            "7x7 input is too small",
        ),
        (
            "train --data data --batch-size 64",
            "more than the 40 to train on",
        ),
        (
            "train --data data --resume none.safetensors",
            "cannot read none.safetensors",
        ),
        ("evaluate --weights none --data data", "cannot read none"),
        (
            "evaluate --weights damaged.safetensors --data data",
            "damaged.safetensors",
        ),
        (
            "evaluate --weights weights.safetensors --data data --json none/file",
            "cannot write none/file",
        ),
        (
            "evaluate --weights weights.safetensors --data data --predictions none/file",
            "cannot write none/file",
        ),
        (
            "evaluate --weights weights.safetensors --data data/train --split labels.csv",
            "its columns are `path`, `label`, but a split has `path` and `set`",
        ),
        (
            "evaluate --weights weights.safetensors --data data --part train",
            "--split <FILE>",
        ),
        (
            "train --data data --best-by f1",
            "`f1` is not a score; use one of",
        ),
        (
            "train --data data --threshold 0.5",
            "`0.5` is no rule for thresholds; write youden, or sensitivity=0.9",
        ),
        (
            "train --data data --threshold youden",
            "--threshold is for pictures that may have several classes",
        ),
        (
            "train --data data --crop-pct 1.5",
            "it is a share above 0 and at most 1",
        ),
        (
            "train --data data --range 4095 0",
            "samples cannot range from 4095 to 0",
        ),
        (
            "train --data data --rotate 200",
            "the rotation of the augmentation must be from 0 to 180, found 200",
        ),
        (
            "train --data data --auto-augment rand=3",
            "it is none, trivial, rand, or rand=3,12",
        ),
        (
            "train --data data --mixup 101",
            "it is a number from 0 (none) to 100",
        ),
        (
            "train --data data --part-rate denseblock9=0.1",
            "denseblock9",
        ),
        ("train --data data --freeze classifier", "classifier"),
        ("predict --weights weights.safetensors", "<PICTURE>"),
        (
            "predict --weights weights.safetensors none.jpg",
            "the picture could not be read",
        ),
        (
            "predict --weights weights.safetensors empty",
            "there are no pictures in empty",
        ),
        (
            "predict --weights weights.safetensors --threshold 2 x.jpg",
            "from 0 to 1",
        ),
        (
            "convert damaged.safetensors out.safetensors",
            "damaged.safetensors",
        ),
        ("new data --data data", "cannot create data"),
        (
            "new fresh --data data --runtime data",
            "give it with --runtime",
        ),
    ] {
        let word = |word| match word {
            "SPEC" => SPEC,
            "BLOCKS" => "blocks: [2]",
            _ => word,
        };
        let mut arguments: Vec<&str> = command.split(' ').map(word).collect();
        let other = ["--spec", "--model", "--resume"];
        if arguments[0] == "train" && !other.iter().any(|own| arguments.contains(own)) {
            arguments.extend(["--spec", SPEC]);
        }
        let said = refusal(folder, &arguments);
        assert!(said.contains(expected), "{command}: {said}");
    }
    // Nothing was begun.
    assert!(!folder.join("out").exists() && !folder.join("fresh").exists());
}

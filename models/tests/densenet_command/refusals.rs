//! Bad input.

use std::fs;
use std::path::Path;

use densenet_runtime::weights::{self, Notes, State, TensorFile};

use crate::{SPEC, refusal, with_pictures};

/// Writes weights for two classes, some with notes that make no sense, and a table for two.
fn write_noted(folder: &Path) {
    let words = format!("{SPEC}, classes: 2");
    let plan = densenet_spec::ParsedSpec::parse(&words).unwrap().plan;
    let two = folder.join("two.safetensors");
    State::initial(&plan, 3).write(&plan, &two).unwrap();
    let file = TensorFile::read(&two).unwrap();
    let write = |name: &str, classes: &[&str], other: [&str; 2]| {
        let notes = Notes {
            classes: classes.iter().map(ToString::to_string).collect(),
            ..Notes::default()
        };
        let to = folder.join(name).with_extension("safetensors");
        let other = other.map(str::to_string).into();
        weights::copy(&file, &plan, to, &notes, [other]).unwrap();
    };
    write("named", &["cat", "dog"], ["densenet.name", "Pets"]);
    write("many", &["cat", "dog", "cow"], ["densenet.name", "Pets"]);
    write("view", &[], ["densenet.view", r#"{"crop_pct":"half"}"#]);
    write("spec", &[], ["densenet.spec", "blocks: [2]"]);
    let rows = ["bricks/0000.jpg,1,0", "dots/0000.jpg,0,"];
    let table = ["path,odd,late"].into_iter().chain(rows);
    let table: Vec<_> = table.collect();
    fs::write(folder.join("two.csv"), table.join("\n")).unwrap();
}

#[test]
fn bad_input_is_refused_by_what_is_wrong_with_it() {
    let folder = with_pictures();
    let folder = folder.path();
    let plan = densenet_spec::ParsedSpec::parse(SPEC).unwrap().plan;
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
    fs::create_dir_all(folder.join("broken/cat")).unwrap();
    fs::write(folder.join("broken/cat/1.jpg"), b"no picture").unwrap();
    fs::write(folder.join("names.txt"), "cat\ndog\n").unwrap();
    write_noted(folder);
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
        ("train --data data --group patient", "--group is for tables"),
        (
            "train --data data --val 0.5",
            "data has validation pictures in data/val; leave --val and --split out",
        ),
        (
            "train --data data/train --val labels.csv",
            "--val labels.csv: a table for validation needs a table for training",
        ),
        (
            "train --data data --input 32x",
            "write it as 224 (a square), 192x256 (height, width)",
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
            "evaluate --weights two.safetensors --data data --input 32",
            "the data has 10 classes, but the network has 2",
        ),
        (
            "evaluate --weights named.safetensors --data data --input 32",
            "but the weights are for [\"cat\", \"dog\"]",
        ),
        (
            "evaluate --weights weights.safetensors --data broken --input 32",
            "none of the pictures could be read",
        ),
        (
            "evaluate --weights weights.safetensors --data data/train --input 32 --split none.csv",
            "none.csv",
        ),
        (
            "evaluate --weights weights.safetensors --data data --split labels.csv",
            "data has validation pictures in data/val",
        ),
        (
            "evaluate --weights weights.safetensors --data data --crops 5",
            "the number of crops must be 1 or 10, not 5",
        ),
        (
            "evaluate --weights weights.safetensors --data data --out own.safetensors",
            "--threshold <RULE>",
        ),
        (
            "evaluate --weights weights.safetensors --data data --input 32 --threshold youden",
            "--threshold is for pictures that may have several classes",
        ),
        (
            "evaluate --weights two.safetensors --input 32 --csv two.csv --root data/train --threshold youden --crops 10",
            "one crop of each picture, not 10; leave --crops out",
        ),
        (
            "evaluate --weights two.safetensors --input 32 --csv two.csv --root data/train --threshold youden --out own.onnx",
            "cannot tell the format of own.onnx by its name",
        ),
        (
            "evaluate --weights two.safetensors --input 32 --csv two.csv --root data/train --threshold youden --out none/own.pth",
            "--out none/own.pth: there is no folder none; make it first",
        ),
        (
            "evaluate --weights two.safetensors --input 32 --csv two.csv --root data/train --threshold youden --out two.safetensors",
            "--out two.safetensors: the file exists; give it another name, or remove it first",
        ),
        (
            "train --data data --best-by f1",
            "`f1` is not a score; use one of",
        ),
        (
            "train --data data --threshold 0.5",
            "`0.5` is not a rule for thresholds; write youden, or sensitivity=0.9",
        ),
        (
            "train --data data --threshold youden",
            "--threshold is for pictures that may have several classes",
        ),
        (
            "train --data data --schedule cosine --cycle-momentum",
            "--cycle-momentum is for --schedule one-cycle",
        ),
        (
            "train --data data --crop-pct 1.5",
            "it must be a share above 0 and at most 1",
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
            "it must be none, trivial, rand, or rand=3,12",
        ),
        (
            "train --data data --mixup 101",
            "it must be a number from 0 (none) to 100",
        ),
        (
            "train --data data --part-rate denseblock9=0.1",
            "denseblock9",
        ),
        ("train --data data --freeze classifier", "classifier"),
        (
            "train --data data --part-rate 0.1",
            "write it as denseblock1=0.1",
        ),
        ("train --data data --warmup -1", "unexpected argument '-1'"),
        (
            "train --data data --warmup=-1",
            "it is a number of 0 or more",
        ),
        (
            "train --data data --pretrained view.safetensors",
            "view.safetensors, its note densenet.view: invalid type: string \"half\"",
        ),
        (
            "train --data data --pretrained weights.safetensors --resume weights.safetensors",
            "cannot be used with",
        ),
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
            "predict --weights weights.safetensors --list none.txt",
            "cannot read none.txt",
        ),
        (
            "predict --weights weights.safetensors --classes none.txt x.jpg",
            "cannot read none.txt",
        ),
        (
            "predict --weights weights.safetensors --classes names.txt x.jpg",
            "2 names were given for the 10 classes of weights.safetensors",
        ),
        (
            "predict --weights view.safetensors x.jpg",
            "view.safetensors, its note densenet.view: invalid type: string \"half\"",
        ),
        (
            "predict --weights spec.safetensors x.jpg",
            "spec.safetensors, its note densenet.spec: ",
        ),
        (
            "predict --weights many.safetensors x.jpg",
            "many.safetensors names 3 classes, but its network has 2",
        ),
        (
            "predict --weights weights.safetensors --threshold 2 x.jpg",
            "from 0 to 1",
        ),
        (
            "convert damaged.safetensors out.safetensors",
            "damaged.safetensors",
        ),
        (
            "convert weights.safetensors none/out.pth",
            "cannot write none/out.pth",
        ),
        ("new data --data data", "cannot create data"),
        ("new fresh --data none", "none/train is missing"),
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

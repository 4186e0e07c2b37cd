//! Bad input: each rule is a test, and its name says the rule.

mod judging;
mod training;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use densenet_runtime::weights::{self, Notes, State, TensorFile};
use tempfile::TempDir;

use crate::{SPEC, TABLE, refusal, with_table};

/// A test for each rule: what is typed is refused with words that say what is wrong with it.
macro_rules! refusals {
    ($($rule:ident: $command:literal => $words:literal;)+) => {
        $(#[test]
        fn $rule() {
            $crate::refusals::check($command, $words);
        })+
    };
}
pub(crate) use refusals;

/// The folder that tests of refusals share while any of them runs.
static SHARED: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());

fn shared() -> Arc<TempDir> {
    let mut shared = SHARED.lock().unwrap();
    shared.upgrade().unwrap_or_else(|| {
        let made = Arc::new(made());
        *shared = Arc::downgrade(&made);
        made
    })
}

/// Checks that a command is refused with these words, and begins nothing. Words in capitals stand
/// for others; a run that names no network is of the small one.
fn check(command: &str, words: &str) {
    let named = format!("{SPEC}, classes: [\"cat\", \"dog\"]");
    let mut arguments = Vec::new();
    for word in command.split(' ') {
        match word {
            "SPEC" => arguments.push(SPEC),
            "NAMED" => arguments.push(&named),
            "BLOCKS" => arguments.push("blocks: [2]"),
            "DATA" => arguments.extend(["--data", "data"]),
            "TABLE" => arguments.extend(TABLE),
            _ => arguments.push(word),
        }
    }
    let networks = ["--spec", "--model", "--resume"];
    if arguments[0] == "train" && !networks.iter().any(|own| arguments.contains(own)) {
        arguments.extend(["--spec", SPEC]);
    }
    // Few pictures are enough for a step.
    if arguments[0] == "train" && !arguments.contains(&"--batch-size") {
        arguments.extend(["--batch-size", "1"]);
    }
    let folder = shared();
    let folder = folder.path();
    let said = refusal(folder, &arguments);
    assert!(said.contains(words), "{said}");
    assert!(!folder.join("out").exists() && !folder.join("fresh").exists());
}

/// Pictures and a table of them, and files that have something wrong.
fn made() -> TempDir {
    let made = with_table();
    let folder = made.path();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let ten = densenet_spec::ParsedSpec::parse(SPEC).unwrap().plan;
    let weights = folder.join("weights.safetensors");
    State::initial(&ten, 3).write(&ten, &weights).unwrap();
    write("damaged.safetensors", "no weights");
    write_noted(folder);
    fs::create_dir(folder.join("empty")).unwrap();
    fs::create_dir_all(folder.join("broken/cat")).unwrap();
    write("broken/cat/1.jpg", "no picture");
    for other in [
        "broken/dog",
        "fewer/cat",
        "fewer/dog",
        "halves/train/cat",
        "halves/valid/cat",
    ] {
        let class = folder.join(other);
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join("1.jpg"), "no picture").unwrap();
    }
    write("paths.csv", "path\nbricks/0000.jpg\n");
    fs::create_dir_all(folder.join("hollow/cat")).unwrap();
    for other in ["train/cat", "val/dog"] {
        let class = folder.join("differ").join(other);
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join("1.jpg"), "no picture").unwrap();
    }
    write("names.txt", "cat\ndog\n");
    write("missing.csv", "path,label\nnone.jpg,cat\nmore.jpg,dog\n");
    let rows = "bricks/0000.jpg,1,0\ndots/0000.jpg,0,\n";
    write("two.csv", &format!("path,odd,late\n{rows}"));
    write("other.csv", "path,odd,early\nstars/0000.jpg,1,0\n");
    write(
        "never.csv",
        &format!("path,odd,never\n{rows}").replace(",1,", ",0,"),
    );
    write(
        "bad.csv",
        "path,odd,late\nbricks/0000.jpg,1,0\ndots/0000.jpg,2,0\n",
    );
    // A split in which each second picture validates, so that patients, who have two, are in both sets.
    let labels = fs::read_to_string(folder.join("labels.csv")).unwrap();
    let paths = labels
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().unwrap());
    let sets = ["train", "val"].into_iter().cycle();
    let split = paths.zip(sets).map(|(path, set)| format!("{path},{set}\n"));
    write(
        "split.csv",
        &format!("path,set\n{}", split.collect::<String>()),
    );
    made
}

/// Writes weights for two classes, some with notes that make no sense.
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
}

//! Examples as programs, and small data sets for them.

#![allow(dead_code, reason = "a test uses what it needs")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use drawn_pictures::PictureSet;

/// An example; `cargo test` builds them beside the tests.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let example = profile.join("examples").join(name);
    let example = example.with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        example.exists(),
        "run `cargo test -p densenet-models`, which builds the examples"
    );
    example
}

/// An example with arguments, to be run in a folder, on one thread: tests run side by side.
pub fn command(name: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(example(name));
    command.current_dir(folder).args(arguments);
    on_one_thread(command)
}

/// What a program printed, and what it printed of errors.
pub fn said(output: Output) -> [String; 2] {
    let succeeded = output.status.success();
    let [said, errors] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(succeeded, "{said}{errors}");
    [said, errors]
}

/// The error of a program that refuses its arguments.
pub fn refusal(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// The same, of one that announces nothing before.
pub fn refusal_at_once(output: &Output) -> String {
    assert!(output.stdout.is_empty(), "announced before it was refused");
    refusal(output)
}

/// With the default number of threads set to one.
pub fn on_one_thread(mut command: Command) -> Command {
    command.env("OMP_NUM_THREADS", "1");
    command
}

/// Records of a label and an image of this many bytes, whose brightness is its class plus some noise.
pub fn records(count: usize, bytes: usize, label: impl Fn(u8) -> Vec<u8>) -> Vec<u8> {
    let mut noise = 1_u32;
    let mut all = Vec::new();
    for class in (0..10).cycle().take(count) {
        all.extend(label(class));
        all.extend((0..bytes).map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            20 * class + (noise >> 28) as u8
        }));
    }
    all
}

/// Small drawn pictures, this many of each of ten classes to train on, and one for validation.
pub fn pictures(data: &Path, train: usize) {
    let pictures = PictureSet {
        size: 64,
        train,
        val: 1,
        ..PictureSet::default()
    };
    drawn_pictures::make(data, &pictures).unwrap();
}

/// A class folder of such pictures, in `train` or `val`.
pub fn a_class(data: &Path, set: &str) -> PathBuf {
    let class = fs::read_dir(data.join(set)).unwrap().next();
    class.unwrap().unwrap().path()
}

/// This many images of CIFAR-10 in each of its six files, in a new folder.
pub fn cifar10(data: &Path, count: usize) {
    fs::create_dir_all(data).unwrap();
    let records = records(count, 3072, |class| vec![class]);
    let train = (1..=5).map(|batch| format!("data_batch_{batch}.bin"));
    for file in train.chain(["test_batch.bin".to_owned()]) {
        fs::write(data.join(file), &records).unwrap();
    }
    let names = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";
    fs::write(data.join("batches.meta.txt"), names).unwrap();
}

/// This many images to train on and to test on in the four files of Fashion-MNIST.
pub fn fashion(data: &Path, count: u32) {
    fs::create_dir_all(data).unwrap();
    let header = |magic: u32, dimensions: &[u32]| -> Vec<u8> {
        let words = std::iter::once(&magic).chain(dimensions);
        words.flat_map(|word| word.to_be_bytes()).collect()
    };
    let mut images = header(2051, &[count, 28, 28]);
    images.extend(records(count as usize, 784, |_| Vec::new()));
    let mut labels = header(2049, &[count]);
    labels.extend(records(count as usize, 0, |class| vec![class]));
    for set in ["train", "t10k"] {
        fs::write(data.join(format!("{set}-images-idx3-ubyte")), &images).unwrap();
        fs::write(data.join(format!("{set}-labels-idx1-ubyte")), &labels).unwrap();
    }
}

//! All parsers of files from elsewhere, each as a function of bytes: for the fuzzers in
//! `tests/fuzz`, and for the test `corpora`, which feeds them the same seeds.
//!
//! A parser may refuse bytes with any error. It must not panic, nor take memory that the bytes only
//! claim to need; and data that is read and written can be read again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use densenet_runtime::Network;
use densenet_runtime::data::{
    Columns, InMemory, LabelKind, Labels, Picture, Split, Table, cifar, decode_deep, decode_within,
    idx, svhn,
};
use densenet_runtime::train::{
    Config, Curves, Metric, Metrics, Observer, Outline, PlanTrainer, Trainer, lines,
};
use densenet_runtime::weights::{
    LoadOptions, NamedTensor, Notes, State, TensorFile, Unexpected, plan_of,
};
use densenet_spec::ParsedSpec;
use proc_macro2::TokenStream;
use tempfile::TempDir;

use crate::memory;
use crate::small_run::{self, Tiny};

/// The note with the checksum of a file of weights, up to its digits.
const SEAL: &[u8] = b"\"densenet.crc32\":\"";
/// More memory than any uncompressed file needs: a picture of curves takes 6 MB.
const MEMORY: usize = 64 << 20;
/// And for each byte of a compressed one: a thousand bytes of eight pixels, with 15 bytes each.
const MEMORY_OF_A_BYTE: usize = 128 << 10;
/// Enough pixels that memory for them would be noticed, and few enough to be decoded quickly. For
/// formats whose data tell how many they can be.
const PIXELS: u64 = 64 << 20;
/// For the others: a few bytes may well be a large picture of one colour.
const FEW_PIXELS: u64 = 4 << 20;
/// More brackets than a spec has.
const DEEPEST: usize = 64;
/// A network that compiles is written out, unless it has more layers than this.
const LAYERS: usize = 60;

/// The environment of parsers: a folder for their files, and a trainer.
pub struct Desk {
    folder: TempDir,
    trainer: Trainer<Tiny>,
}

impl Desk {
    /// A folder in `TMPDIR`, or in memory, where writing files to the disk takes no time.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() && std::env::var_os("TMPDIR").is_none() {
            true => TempDir::new_in(memory),
            false => TempDir::new(),
        };
        let folder = folder.unwrap();
        let trainer = Trainer::new(small_run::model(1), small_run::config(1, 2)).unwrap();
        for (path, bytes) in fixed_files() {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        Self { folder, trainer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of these bytes.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

/// A parser.
pub struct Parser {
    /// The name of its fuzz target, and of the folders of its corpus.
    pub name: &'static str,
    parse: fn(&mut Desk, &[u8]) -> bool,
}

/// All parsers.
pub const ALL: [Parser; 11] = [
    Parser::new("safetensors", safetensors),
    Parser::new("torch", torch),
    Parser::new("checkpoint", checkpoint),
    Parser::new("idx", idx),
    Parser::new("cifar", cifar),
    Parser::new("mat", mat),
    Parser::new("metrics", metrics),
    Parser::new("curves", curves),
    Parser::new("picture", picture),
    Parser::new("table", table),
    Parser::new("spec", spec),
];

impl Parser {
    const fn new(name: &'static str, parse: fn(&mut Desk, &[u8]) -> bool) -> Self {
        Self { name, parse }
    }

    /// Has it read some bytes; returns whether it accepted them.
    ///
    /// # Panics
    /// If it takes more memory than such small files need, where that is counted, and when it
    /// panics itself.
    pub fn feed(&self, desk: &mut Desk, bytes: &[u8]) -> bool {
        let (is_read, most) = memory::most_of(|| (self.parse)(desk, bytes));
        let allowed = MEMORY + MEMORY_OF_A_BYTE * bytes.len();
        assert!(
            most <= allowed,
            "{} takes {most} bytes of memory",
            self.name
        );
        is_read
    }

    /// Its seeds, and what fuzzers found.
    ///
    /// # Panics
    /// If they cannot be read.
    pub fn corpus(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let mut folders = ["seeds", "findings"]
            .map(|kind| root.join(kind).join(self.name))
            .to_vec();
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            // There may be no findings.
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = fs::read(&path).unwrap();
                    files.push((path, bytes));
                }
            }
        }
        files.sort();
        files
    }

    /// The parser of a name.
    ///
    /// # Panics
    /// If no parser has this name.
    pub fn named(name: &str) -> Self {
        let found = ALL.into_iter().find(|parser| parser.name == name);
        found.unwrap_or_else(|| panic!("no parser is called {name}"))
    }
}

/// Weights, unchanged and with a correct checksum.
fn safetensors(desk: &mut Desk, bytes: &[u8]) -> bool {
    let mut is_read = false;
    for bytes in [Some(bytes.to_vec()), sealed(bytes)].into_iter().flatten() {
        let path = desk.file("weights.safetensors", &bytes);
        let Ok(file) = TensorFile::read(&path) else {
            continue;
        };
        for name in file.names() {
            assert!(file.shape(&name).is_some(), "{name}");
            let _ = file.floats(&name);
            let _ = file.integers(&name);
        }
        told(desk, &file);
        for unexpected in [Unexpected::Refuse, Unexpected::Ignore] {
            let Ok(state) = State::from_file(&Tiny::PLAN, &file, unexpected) else {
                continue;
            };
            let again = desk.path("again.safetensors");
            state.write(&Tiny::PLAN, &again).unwrap();
            assert!(State::read(&Tiny::PLAN, &again).unwrap() == state);
            is_read = true;
        }
    }
    is_read
}

/// The network of a file's shapes, written and read again.
fn told(desk: &Desk, file: &TensorFile) {
    let _ = Notes::of(file);
    let Ok(plan) = plan_of(file, None) else {
        return;
    };
    let Ok((state, _)) = State::load(&plan, file, &LoadOptions::default()) else {
        return;
    };
    let again = desk.path("told.pth");
    state.write(&plan, &again).unwrap();
    let again = TensorFile::read(&again).unwrap();
    assert!(plan_of(&again, None).unwrap() == plan);
    assert!(State::from_file(&plan, &again, Unexpected::Refuse).unwrap() == state);
}

/// What `torch.save` writes.
fn torch(desk: &mut Desk, bytes: &[u8]) -> bool {
    let Ok(file) = TensorFile::read(desk.file("weights.pth", bytes)) else {
        return false;
    };
    if file.found().is_none() {
        return false;
    }
    told(desk, &file);
    let names = file.names();
    let mut tensors = Vec::new();
    for name in &names {
        let shape = file.shape(name).unwrap().to_vec();
        let _ = file.integers(name);
        if let Ok(values) = file.floats(name) {
            assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
            tensors.push((name, shape, values));
        }
    }
    if tensors.is_empty() {
        return true;
    }
    let named = tensors
        .iter()
        .map(|(name, shape, values)| NamedTensor::new(*name, shape.as_slice(), values));
    let again = desk.path("again.pth");
    TensorFile::write_torch(&again, named, BTreeMap::new()).unwrap();
    let read = TensorFile::read(&again).unwrap();
    for (name, shape, values) in &tensors {
        assert_eq!(read.shape(name), Some(shape.as_slice()), "{name}");
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read.floats(name).unwrap()), bits(values), "{name}");
    }
    true
}

/// A run to resume, unchanged and with a correct checksum.
fn checkpoint(desk: &mut Desk, bytes: &[u8]) -> bool {
    let mut is_read = false;
    for bytes in [Some(bytes.to_vec()), sealed(bytes)].into_iter().flatten() {
        let path = desk.file("checkpoint.safetensors", &bytes);
        let _ = TensorFile::read(&path).and_then(|file| file.classes());
        let _ = Config::of_checkpoint(&path);
        for resume in [PlanTrainer::resume, PlanTrainer::resume_with_schedule] {
            if resume(&mut desk.trainer, &path).is_ok() {
                let again = desk.path("again.safetensors");
                desk.trainer.save(&again).unwrap();
                let steps = desk.trainer.steps();
                desk.trainer.resume(&again).unwrap();
                assert_eq!(desk.trainer.steps(), steps);
                is_read = true;
            }
        }
    }
    is_read
}

/// A file with the checksum of its bytes, if it has one.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let at = bytes
        .windows(SEAL.len())
        .position(|window| window == SEAL)?;
    let digits = at + SEAL.len()..at + SEAL.len() + 8;
    let mut bytes = bytes.to_vec();
    bytes.get_mut(digits.clone())?.fill(b'0');
    let checksum = crc32fast::hash(&bytes);
    bytes[digits].copy_from_slice(format!("{checksum:08x}").as_bytes());
    Some(bytes)
}

/// Images, and labels.
fn idx(desk: &mut Desk, bytes: &[u8]) -> bool {
    let path = desk.file("input-ubyte", bytes);
    let (images, labels) = (desk.path("idx/images"), desk.path("idx/labels"));
    let as_images = idx::open(&path, labels, &idx::DIGITS).is_ok();
    let as_labels = idx::open(images, &path, &idx::DIGITS).is_ok();
    as_images || as_labels
}

/// Records of CIFAR-10 and CIFAR-100, and names of classes.
fn cifar(desk: &mut Desk, bytes: &[u8]) -> bool {
    let mut is_read = false;
    for (folder, file) in [
        ("cifar10", "data_batch_3.bin"),
        ("cifar10_names", "batches.meta.txt"),
    ] {
        desk.file(&format!("{folder}/{file}"), bytes);
        is_read |= cifar::cifar10(desk.path(folder)).is_ok();
    }
    for (folder, file) in [
        ("cifar100", "train.bin"),
        ("cifar100_names", "fine_label_names.txt"),
    ] {
        desk.file(&format!("{folder}/{file}"), bytes);
        is_read |= cifar::cifar100(desk.path(folder)).is_ok();
    }
    is_read
}

/// MATLAB's variables.
fn mat(desk: &mut Desk, bytes: &[u8]) -> bool {
    svhn::open(desk.file("input.mat", bytes)).is_ok()
}

/// A run's metrics, and those that a resumed run keeps.
fn metrics(desk: &mut Desk, bytes: &[u8]) -> bool {
    let path = desk.file("metrics.jsonl", bytes);
    let Ok(found) = lines(&path) else {
        return false;
    };
    let step = found.get(found.len() / 2).map_or(1, Metric::step).max(1);
    let outline = Outline {
        step,
        epoch_steps: 10,
        last_step: step,
        evaluation_due: false,
    };
    let mut metrics = Metrics::create(&path, step).unwrap();
    metrics.begin(&outline).unwrap();
    // Of a change of the schedule at this very step, see `Metrics`.
    let is_kept = |metric: &&Metric| match metric {
        Metric::Rescheduled(change) => change.step < step,
        _ => metric.step() <= step,
    };
    let kept: Vec<_> = found.iter().filter(is_kept).collect();
    // NaN is not equal to itself.
    assert_eq!(format!("{kept:?}"), format!("{:?}", lines(&path).unwrap()));
    !kept.is_empty()
}

/// A run's metrics, drawn.
fn curves(desk: &mut Desk, bytes: &[u8]) -> bool {
    let path = desk.file("metrics.jsonl", bytes);
    let curves = Curves::new(path, desk.path("curves.png"), "A run");
    curves.draw().is_ok()
}

/// A picture of any format, in bytes and with all its bits.
fn picture(_: &mut Desk, bytes: &[u8]) -> bool {
    let most = match bytes {
        [0xff, 0xd8, ..] | [0x89, ..] | [b'P', ..] | [b'I' | b'M', ..] => PIXELS,
        _ => FEW_PIXELS,
    };
    let Ok(picture) = decode_deep(bytes, most) else {
        return false;
    };
    let (width, height) = picture.size();
    let area = width as usize * height as usize;
    if let Picture::Deep(deep) = picture {
        assert_eq!(deep.samples.len(), deep.channels * area);
        assert!(deep.samples.iter().all(|sample| sample.is_finite()));
    }
    let bytes = decode_within(bytes, most).unwrap();
    assert_eq!(bytes.pixels.len(), 3 * area);
    true
}

/// A table of pictures, in each form, and a second one that is read as the first; and a split.
fn table(desk: &mut Desk, bytes: &[u8]) -> bool {
    let kinds = [
        None,
        Some(LabelKind::Exclusive),
        Some(LabelKind::Independent),
    ];
    let three = InMemory::new([1, 1, 1], vec![0; 3], vec![0; 3], vec!["all".into()]).unwrap();
    let mut is_read = Split::read(&three, desk.file("split.csv", bytes)).is_ok();
    for name in ["table.csv", "table.tsv", "table.txt"] {
        let file = desk.file(name, bytes);
        let _ = Table::read_paths(&file, &Columns::default());
        for kind in kinds {
            let columns = Columns {
                kind,
                ..Columns::default()
            };
            let Ok(table) = Table::read(&file, &columns) else {
                continue;
            };
            let (pictures, classes) = (table.len(), table.classes().len());
            match table.labels() {
                Labels::Classes(labels) => {
                    assert_eq!(labels.len(), pictures);
                    assert!(labels.iter().all(|&label| (label as usize) < classes));
                }
                Labels::Independent(labels) => {
                    assert_eq!(labels.len(), pictures * classes);
                    let is_label = |v: &f32| v.is_nan() || (0.0..=1.0).contains(v);
                    assert!(labels.iter().all(is_label));
                }
                _ => {}
            }
            let again = Table::read(&file, table.columns()).unwrap();
            // NaN is not equal to itself.
            assert_eq!(format!("{again:?}"), format!("{table:?}"));
            is_read = true;
        }
    }
    is_read
}

/// A network's spec, as text.
fn spec(_: &mut Desk, bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    match ParsedSpec::parse(text) {
        Ok(spec)
            if spec
                .plan
                .blocks()
                .iter()
                .map(|block| block.layers)
                .sum::<usize>()
                > LAYERS =>
        {
            return true;
        }
        Ok(_) => {}
        Err(errors) => assert!(!errors.to_string().is_empty(), "{text}"),
    }
    let Ok(tokens) = text.parse::<TokenStream>() else {
        return false;
    };
    // The compiler itself cannot read deeper nesting than this, by far.
    if text.bytes().filter(|byte| b"([{".contains(byte)).count() > DEEPEST {
        return true;
    }
    let code = densenet_spec::compile(tokens);
    assert!(syn::parse2::<syn::File>(code).is_ok(), "{text}");
    true
}

/// Valid input beside the one invalid file.
fn fixed_files() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![
        ("idx/images".into(), {
            let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3];
            bytes.extend([7; 12]);
            bytes
        }),
        ("idx/labels".into(), vec![0, 0, 8, 1, 0, 0, 0, 2, 3, 9]),
    ];
    let names = b"one\ntwo\n".to_vec();
    for folder in ["cifar10", "cifar10_names"] {
        for batch in 1..=5 {
            files.push((format!("{folder}/data_batch_{batch}.bin"), vec![1; 3073]));
        }
        files.push((format!("{folder}/test_batch.bin"), vec![1; 3073]));
        files.push((format!("{folder}/batches.meta.txt"), names.clone()));
    }
    for folder in ["cifar100", "cifar100_names"] {
        for set in ["train", "test"] {
            files.push((format!("{folder}/{set}.bin"), vec![1; 3074]));
        }
        files.push((format!("{folder}/fine_label_names.txt"), names.clone()));
    }
    files
}

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::super::checkpoint;
use super::*;
use crate::Arena;
use crate::weights::{self, State, TensorFile, Unexpected};

fn saved(folder: &Path) -> (Runner, std::path::PathBuf) {
    let images = Images::new(8, 8);
    let mut runner = runner(config());
    for _ in 0..3 {
        runner.step(images.first(8), Instant::now()).unwrap();
    }
    let path = folder.join("checkpoint.safetensors");
    runner.save(&path).unwrap();
    (runner, path)
}

fn refusal(path: &Path, config: Config, dropout: f64) -> String {
    let executor = Box::new(Regression::new(dropout, 8));
    let mut runner = Runner::new("Regression", executor, config).unwrap();
    let before = runner.state().unwrap();
    let message = runner.restore(path).unwrap_err().to_string();
    assert_eq!(
        runner.state().unwrap(),
        before,
        "changed by a file that was refused"
    );
    assert_eq!(runner.position.step, 0);
    message
}

#[test]
fn a_checkpoint_gives_back_all_that_it_took() {
    let folder = tempfile::tempdir().unwrap();
    let (mut before, path) = saved(folder.path());
    let mut after = runner(config());
    after.restore(&path).unwrap();
    assert_eq!(after.position, before.position);
    assert_eq!(after.state().unwrap(), before.state().unwrap());
    assert_ne!(after.state().unwrap().running[0], 0.0);
    // Momentum is seen in what follows.
    let images = Images::new(8, 8);
    for _ in 0..2 {
        let [a, b] = [&mut before, &mut after]
            .map(|runner| runner.step(images.first(8), Instant::now()).unwrap().loss);
        assert_eq!(a.to_bits(), b.to_bits());
    }
}

/// A checkpoint as version 0.1 wrote it before its note had a checksum: format 1, the last norm
/// numbered by the blocks, and fields that came later left out.
fn in_format_1(path: &Path, classes: &[&str]) {
    let file = TensorFile::read(path).unwrap();
    let mut header: serde_json::Value =
        serde_json::from_str(file.note("densenet").unwrap()).unwrap();
    let floats: Vec<_> = file
        .names()
        .into_iter()
        .map(|name| {
            let values = file.floats(&name).unwrap();
            let shape = file.shape(&name).unwrap().to_vec();
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name.replace("norm5", "norm2"), shape, bytes)
        })
        .collect();
    let plan = double::plan(0.2);
    let state = State::from_file(&plan, &file, Unexpected::Ignore).unwrap();
    let mut hasher = crc32fast::Hasher::new();
    let momentum = weights::momentum(&plan, &file).unwrap();
    for value in [&state.parameters, &state.running, &momentum]
        .into_iter()
        .flatten()
    {
        hasher.update(&value.to_le_bytes());
    }
    let fields = header.as_object_mut().unwrap();
    fields.insert("format".into(), 1.into());
    fields.insert("checksum".into(), hasher.finalize().into());
    fields.remove("rescheduled");
    if !classes.is_empty() {
        fields.insert("classes".into(), classes.into());
    }
    let views = floats.iter().map(|(name, shape, values)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), values);
        (name.clone(), view.unwrap())
    });
    let notes = HashMap::from([("densenet".to_string(), header.to_string())]);
    std::fs::write(path, safetensors::serialize(views, Some(notes)).unwrap()).unwrap();
}

#[test]
fn checkpoints_of_format_1_go_on() {
    for classes in [&[][..], &["cat", "dog"]] {
        let folder = tempfile::tempdir().unwrap();
        let (before, path) = saved(folder.path());
        in_format_1(&path, classes);
        let mut after = runner(config());
        after.restore(&path).unwrap();
        assert_eq!(after.state().unwrap(), before.state().unwrap());
        assert_eq!(after.position, before.position);
        assert_eq!(after.classes, classes);
    }
}

#[test]
fn a_changed_number_of_a_checkpoint_of_format_1_is_noticed_as_weights_too() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = saved(folder.path());
    in_format_1(&path, &[]);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 2;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(refusal(&path, config(), 0.2).contains("checksum"));
    let error = State::read(&double::plan(0.2), &path).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[test]
fn a_position_of_format_1_that_makes_no_sense_is_refused() {
    for (field, value) in [
        ("step", u64::MAX),
        ("epoch", u64::from(u32::MAX)),
        ("epoch_step", u64::MAX),
        ("step", 4),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (_, path) = saved(folder.path());
        in_format_1(&path, &[]);
        let file = TensorFile::read(&path).unwrap();
        let note = file.note("densenet").unwrap();
        let mut header: serde_json::Value = serde_json::from_str(note).unwrap();
        header["position"][field] = value.into();
        let changed = header.to_string();
        let bytes = std::fs::read(&path).unwrap();
        let escaped = |text: &str| serde_json::to_string(text).unwrap().into_bytes();
        std::fs::write(&path, with_note(&bytes, &escaped(note), &escaped(&changed))).unwrap();
        let message = refusal(&path, config(), 0.2);
        assert!(
            message.contains("damaged") && message.contains("steps"),
            "{message}"
        );
    }
}

/// The file with its note replaced.
fn with_note(bytes: &[u8], note: &[u8], by: &[u8]) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, data) = bytes[8..].split_at(length);
    let at = header.windows(note.len()).position(|w| w == note).unwrap();
    let mut new = [&header[..at], by, &header[at + note.len()..]].concat();
    new.resize(new.len().next_multiple_of(8), b' ');
    [&(new.len() as u64).to_le_bytes()[..], &new, data].concat()
}

#[test]
fn each_byte_of_a_checkpoint_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = saved(folder.path());
    let good = std::fs::read(&path).unwrap();
    let plan = double::plan(0.2);
    let mut bytes = good.clone();
    // All of the header, where settings, position and names are, and some of each tensor.
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for at in (0..header).chain((header..good.len()).step_by(97)) {
        let bit = at % 8;
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).unwrap();
        let found = checkpoint::load(&path, "Regression", &plan);
        assert!(found.is_err(), "bit {bit} of byte {at}");
        bytes[at] ^= 1 << bit;
    }
    std::fs::write(&path, &good).unwrap();
    checkpoint::load(&path, "Regression", &plan).unwrap();
}

#[test]
fn equal_runs_write_equal_files() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let files = folders.each_ref().map(|folder| {
        let (_, path) = saved(folder.path());
        std::fs::read(path).unwrap()
    });
    assert!(files[0] == files[1]);
}

#[test]
fn a_checkpoint_of_numbers_that_are_not_finite_is_not_written() {
    for arena in [Arena::Parameters, Arena::Running, Arena::Momentum] {
        let folder = tempfile::tempdir().unwrap();
        let (mut runner, path) = saved(folder.path());
        let before = std::fs::read(&path).unwrap();
        let plan = runner.executor().plan();
        let count = match arena {
            Arena::Running => plan.running_count(),
            _ => plan.parameter_count(),
        };
        let mut values = vec![1.0; count];
        values[1] = f32::INFINITY;
        runner.executor_mut().write(arena, &values).unwrap();
        let message = runner.save(&path).unwrap_err().to_string();
        assert!(message.contains("holds inf"), "{message}");
        assert!(std::fs::read(&path).unwrap() == before);
    }
}

#[test]
fn a_checkpoint_loads_as_weights_under_torchvisions_names() {
    let folder = tempfile::tempdir().unwrap();
    let (runner, path) = saved(folder.path());
    let file = TensorFile::read(&path).unwrap();
    let plan = runner.executor().plan();
    let state = State::from_file(plan, &file, Unexpected::Ignore).unwrap();
    assert_eq!(state, runner.state().unwrap());
    assert!(file.shape("features.conv0.weight").is_some());
    assert!(file.shape("momentum.features.conv0.weight").is_some());
}

#[test]
fn a_checkpoint_of_another_network_is_refused_with_both_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = saved(folder.path());
    let message = refusal(&path, config(), 0.5);
    assert!(message.contains("dropout 0.2"), "{message}");
    assert!(message.contains("dropout 0.5"), "{message}");
}

#[test]
fn a_checkpoint_of_other_settings_is_refused_with_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = saved(folder.path());
    let other = Config {
        seed: 43,
        weight_decay: 0.0,
        ..config()
    };
    let message = refusal(&path, other, 0.2);
    assert!(message.contains("seed was 42 and is 43"), "{message}");
    assert!(message.contains("weight decay was"), "{message}");
    assert!(!message.contains("batch"), "{message}");
}

#[test]
fn a_checkpoint_that_is_cut_off_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = saved(folder.path());
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let message = refusal(&path, config(), 0.2);
        assert!(message.contains("checkpoint.safetensors"), "{message}");
        assert!(message.contains("damaged"), "{length}: {message}");
    }
}

#[test]
fn a_checkpoint_with_a_flipped_bit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = saved(folder.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 2;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let message = refusal(&path, config(), 0.2);
    assert!(message.contains("checksum"), "{message}");
    // Not as weights, either.
    let error = State::read(&double::plan(0.2), &path).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[test]
fn weights_without_a_run_are_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let runner = runner(config());
    let state = runner.state().unwrap();
    state.write(runner.executor().plan(), &path).unwrap();
    let message = refusal(&path, config(), 0.2);
    assert!(message.contains("no run to resume"), "{message}");
}

#[test]
fn a_checkpoint_that_is_not_there_is_named() {
    let message = refusal(Path::new("nowhere.safetensors"), config(), 0.2);
    assert!(message.contains("nowhere.safetensors"), "{message}");
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let (runner, path) = saved(folder.path());
    let before = std::fs::read(&path).unwrap();
    // A folder in the file's place: the rename fails, as late as it can.
    let blocked = folder.path().join("blocked");
    std::fs::create_dir_all(blocked.join("full")).unwrap();
    let message = runner.save(&blocked).unwrap_err().to_string();
    assert!(message.contains("blocked"), "{message}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

use std::path::Path;
use std::time::Instant;

use super::*;
use crate::weights::{State, TensorFile, Unexpected};

fn saved(folder: &Path) -> (Engine, std::path::PathBuf) {
    let images = Images::new(8, 8);
    let mut engine = engine(config());
    for _ in 0..3 {
        engine.step(images.first(8), Instant::now()).unwrap();
    }
    let path = folder.join("checkpoint.safetensors");
    engine.save(&path).unwrap();
    (engine, path)
}

fn refusal(path: &Path, config: Config, dropout: f64) -> String {
    let executor = Box::new(Regression::new(dropout, 8));
    let mut engine = Engine::new("Regression", executor, config).unwrap();
    let before = engine.state().unwrap();
    let message = engine.restore(path).unwrap_err().to_string();
    assert_eq!(
        engine.state().unwrap(),
        before,
        "changed by a file that was refused"
    );
    assert_eq!(engine.position.step, 0);
    message
}

#[test]
fn a_checkpoint_gives_back_all_that_it_took() {
    let folder = tempfile::tempdir().unwrap();
    let (mut before, path) = saved(folder.path());
    let mut after = engine(config());
    after.restore(&path).unwrap();
    assert_eq!(after.position, before.position);
    assert_eq!(after.state().unwrap(), before.state().unwrap());
    assert_ne!(after.state().unwrap().running[0], 0.0);
    // Momentum is seen in what follows.
    let images = Images::new(8, 8);
    for _ in 0..2 {
        let [a, b] = [&mut before, &mut after]
            .map(|engine| engine.step(images.first(8), Instant::now()).unwrap().loss);
        assert_eq!(a.to_bits(), b.to_bits());
    }
}

#[test]
fn a_checkpoint_from_before_classes_were_kept_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (before, path) = saved(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    // Notes are JSON in a JSON string; the length of the header stays as it is.
    let field = br#",\"classes\":[]"#;
    let at = bytes.windows(field.len()).position(|w| w == field).unwrap();
    let mut old = bytes.clone();
    old[at..at + field.len()].fill(b' ');
    std::fs::write(&path, old).unwrap();
    let mut after = engine(config());
    after.restore(&path).unwrap();
    assert_eq!(after.state().unwrap(), before.state().unwrap());
    assert!(after.classes.is_empty());
}

#[test]
fn a_checkpoint_loads_as_weights_under_torchvisions_names() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, path) = saved(folder.path());
    let file = TensorFile::read(&path).unwrap();
    let plan = engine.executor().plan();
    let state = State::from_file(plan, &file, Unexpected::Ignore).unwrap();
    assert_eq!(state, engine.state().unwrap());
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
}

#[test]
fn weights_without_a_run_are_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let engine = engine(config());
    let state = engine.state().unwrap();
    state.write(engine.executor().plan(), &path).unwrap();
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
    let (engine, path) = saved(folder.path());
    let before = std::fs::read(&path).unwrap();
    // A folder in the file's place: the rename fails, as late as it can.
    let blocked = folder.path().join("blocked");
    std::fs::create_dir_all(blocked.join("full")).unwrap();
    let message = engine.save(&blocked).unwrap_err().to_string();
    assert!(message.contains("blocked"), "{message}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

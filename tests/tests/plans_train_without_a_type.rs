//! A network that is known only by its plan trains as its type does, bit for bit, and each resumes
//! the other's runs.

use std::fs;

use densenet_runtime::Network;
use densenet_runtime::train::{PlanTrainer, Trainer};
use densenet_runtime::weights::{State, TensorFile};
use densenet_runtime::{Batch, Device, Pixels};
use densenet_tests::random;
use densenet_tests::small_run::{self, Tiny};
use tempfile::TempDir;

/// Images of the network, and their labels.
fn batch(seed: u32) -> (Vec<f32>, Vec<u32>) {
    let (bytes, labels) = random::bright_images(8, 3 * 8 * 8, 3, 25, seed);
    let values = bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect();
    (values, labels)
}

fn steps(trainer: &mut PlanTrainer, seeds: std::ops::Range<u32>) {
    for seed in seeds {
        let (images, labels) = batch(seed);
        let batch = Batch::of_classes(Pixels::Nchw(&images), &labels);
        trainer.step(batch).unwrap();
    }
}

fn of_plan() -> PlanTrainer {
    let start = State::initial(&Tiny::PLAN, 3);
    PlanTrainer::new("Tiny", Tiny::PLAN, &start, small_run::config(3, 2)).unwrap()
}

fn of_type() -> Trainer<Tiny> {
    Trainer::new(small_run::model(3), small_run::config(3, 2)).unwrap()
}

#[test]
fn a_plan_trains_as_its_type_and_writes_the_same_checkpoint() {
    let folder = TempDir::new().unwrap();
    let (mut plan, mut typed) = (of_plan(), of_type());
    assert_eq!(plan.state().unwrap(), State::of(&small_run::model(3)));
    steps(&mut plan, 0..4);
    steps(&mut typed, 0..4);
    let [one, other] = ["plan", "type"].map(|name| folder.path().join(name));
    plan.save(&one).unwrap();
    typed.save(&other).unwrap();
    assert!(fs::read(one).unwrap() == fs::read(other).unwrap());
    let state = plan.state().unwrap();
    assert_eq!(state, State::of(&typed.into_model().unwrap()));
}

#[test]
fn either_goes_on_with_a_run_of_the_other() {
    let folder = TempDir::new().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    let mut whole = of_type();
    steps(&mut whole, 0..2);
    whole.save(&checkpoint).unwrap();
    let mut plan = of_plan();
    plan.resume(&checkpoint).unwrap();
    steps(&mut plan, 2..4);
    plan.save(&checkpoint).unwrap();
    let mut typed = of_type();
    typed.resume(&checkpoint).unwrap();
    steps(&mut typed, 4..6);
    steps(&mut whole, 2..6);
    assert_eq!(typed.state().unwrap(), whole.state().unwrap());
}

#[test]
fn notes_are_in_each_file_of_a_run_and_replace_none_of_its_own() {
    let folder = TempDir::new().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    let mut trainer = of_plan();
    trainer.note("densenet.spec", "blocks: [1, 1]");
    trainer.note("densenet", "nonsense");
    trainer.save(&checkpoint).unwrap();
    let file = TensorFile::read(&checkpoint).unwrap();
    assert_eq!(file.note("densenet.spec"), Some("blocks: [1, 1]"));
    of_plan().resume(&checkpoint).unwrap();
}

#[test]
fn a_state_of_another_plan_is_refused() {
    let mut state = State::initial(&Tiny::PLAN, 3);
    state.parameters.pop();
    let trainer = PlanTrainer::new("Tiny", Tiny::PLAN, &state, small_run::config(3, 2));
    let error = trainer.err().unwrap().to_string();
    assert!(error.contains("parameters"), "{error}");
}

#[test]
fn an_executor_of_another_plan_is_refused() {
    let other = Tiny::PLAN.with_dropout(0.5).unwrap();
    let config = small_run::config(3, 2);
    let executor = config.executor(other, &Device::Cpu).unwrap();
    let error = Trainer::with_executor(small_run::model(3), config, executor);
    let error = error.err().expect("an error").to_string();
    assert!(error.contains("another plan"), "{error}");
}

//! The names that a spec gives its classes go into the network's files, and before a run they are
//! compared with the data's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use densenet_runtime::data::{ImageFolder, Loader};
use densenet_runtime::dfdx::prelude::Cpu;
use densenet_runtime::train::{Config, Fit, Schedule, Summary, TrainError, Trainer};
use densenet_runtime::weights::{State, TensorFile};
use densenet_runtime::{Batch, Network, Pixels, densenet};
use tempfile::TempDir;

/// Networks that differ only in the names of their classes.
macro_rules! networks {
    ($($name:ident $classes:tt)*) => {
        $(densenet! {
            $name {
                blocks: [2, 2], k: 6, theta: 0.5, bottleneck, input: [3, 16, 16],
                classes: $classes,
            }
        })*
    };
}

networks! {
    Pets ["cat", "dog"]
    Turned ["dog", "cat"]
    Farm ["cat", "cow"]
    Numbered 2
}

/// A folder of class folders, each with 12 copies of a picture of its own.
fn folder(root: &Path, set: &str, classes: &[&str]) {
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../densenet-runtime/tests/data/golden");
    for (class, picture) in classes.iter().zip(["wide.png", "small.png", "tall.png"]) {
        let folder = root.join(set).join(class);
        fs::create_dir_all(&folder).unwrap();
        for number in 0..12 {
            fs::copy(golden.join(picture), folder.join(format!("{number}.png"))).unwrap();
        }
    }
}

/// Pictures to train on and pictures to validate on.
struct Data {
    root: TempDir,
    train: Loader,
    validation: Loader,
}

impl Data {
    fn of(train: &[&str], validation: &[&str]) -> Self {
        let root = TempDir::new().unwrap();
        folder(root.path(), "train", train);
        folder(root.path(), "val", validation);
        let open = |set| Arc::new(ImageFolder::open(root.path().join(set), [16, 16]).unwrap());
        let train = Loader::training(open("train"), 8).unwrap().seeded(3);
        let validation = Loader::evaluation(open("val"), 8).unwrap();
        Self {
            root,
            train,
            validation,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn fit<N: Network>(&self, trainer: &mut Trainer<N>) -> Result<Summary, TrainError> {
        let fit = Fit {
            checkpoint: Some(self.file("checkpoint.safetensors")),
            ..Fit::default()
        };
        trainer.fit(&self.train, &self.validation, &fit, &mut ())
    }
}

fn trainer<N: Network>() -> Trainer<N> {
    let config = Config {
        epochs: 6,
        batch: 8,
        schedule: Schedule::cosine(0.1, 0.5),
        threads: 1,
        ..Config::cifar()
    };
    Trainer::new(N::build(&Cpu::seed_from_u64(5)), config).unwrap()
}

fn classes(path: &Path) -> Vec<String> {
    TensorFile::read(path).unwrap().classes().unwrap()
}

#[test]
fn a_run_keeps_the_names_and_its_files_are_not_taken_for_those_of_other_classes() {
    let data = Data::of(Pets::CLASSES, Pets::CLASSES);
    let checkpoint = data.file("checkpoint.safetensors");
    let weights = data.file("weights.safetensors");
    let mut pets = trainer::<Pets>();
    let evaluation = data.fit(&mut pets).unwrap().evaluation.unwrap();
    assert_eq!((evaluation.images, evaluation.top1), (24, 24));
    let steps = pets.steps();
    let state = State::of(&pets.into_model().unwrap());
    state.write(&Pets::PLAN, &weights).unwrap();
    for file in [&checkpoint, &weights] {
        assert_eq!(classes(file), Pets::CLASSES);
    }

    let order = "label 0 is `dog` in the network, but `cat` in the file";
    let mut turned = trainer::<Turned>();
    let refusals = [
        turned.resume(&checkpoint).unwrap_err().to_string(),
        State::read(&Turned::PLAN, &weights)
            .unwrap_err()
            .to_string(),
    ];
    for (message, file) in refusals.iter().zip([&checkpoint, &weights]) {
        assert!(
            message.starts_with(&file.display().to_string()),
            "{message}"
        );
        assert!(message.contains(order), "{message}");
    }
    assert_eq!(turned.steps(), 0);
    let message = trainer::<Farm>()
        .resume(&checkpoint)
        .unwrap_err()
        .to_string();
    let difference = "only the network has `cow`; only the file has `dog`";
    assert!(message.contains(difference), "{message}");

    // A network with numbered classes has no names that could contradict.
    assert_eq!(State::read(&Numbered::PLAN, &weights).unwrap(), state);
    let mut numbered = trainer::<Numbered>();
    numbered.resume(&checkpoint).unwrap();
    assert_eq!(numbered.steps(), steps);
}

#[test]
fn data_of_other_classes_is_refused_before_the_run() {
    fn refusal<N: Network>(train: &[&str], validation: &[&str]) -> String {
        let data = Data::of(train, validation);
        let mut trainer = trainer::<N>();
        let error = data.fit(&mut trainer).unwrap_err();
        assert!(matches!(error, TrainError::Classes { .. }), "{error}");
        assert_eq!(trainer.steps(), 0);
        assert!(!data.file("checkpoint.safetensors").exists());
        error.to_string()
    }
    let pets = ["cat", "dog"];
    for (message, difference) in [
        (
            refusal::<Turned>(&pets, &pets),
            "the training data has other classes than the network: they are in another order: \
             label 0 is `dog` in the network, but `cat` in the data",
        ),
        (
            refusal::<Farm>(&pets, &pets),
            "only the network has `cow`; only the data has `dog`",
        ),
        (refusal::<Pets>(&["cat"], &pets), "the data lacks `dog`"),
        (
            refusal::<Pets>(&["cat", "dog", "owl"], &pets),
            "the network lacks `owl`",
        ),
        (
            refusal::<Pets>(&pets, &["cat", "cow"]),
            "the validation data has other classes",
        ),
    ] {
        assert!(message.contains(difference), "{message}");
    }

    let data = Data::of(&pets, &pets);
    let evaluated = trainer::<Turned>().evaluate(&data.validation);
    assert!(matches!(evaluated, Err(TrainError::Classes { .. })));
    trainer::<Numbered>().evaluate(&data.validation).unwrap();
}

#[test]
fn a_checkpoint_without_names_goes_on_with_the_networks() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut numbered = trainer::<Numbered>();
    let pixels = [0.5; 2 * 3 * 16 * 16];
    let batch = Batch::of_classes(Pixels::Nchw(&pixels), &[0, 1]);
    numbered.step(batch).unwrap();
    numbered.save(&path).unwrap();
    assert!(classes(&path).is_empty());
    let mut pets = trainer::<Pets>();
    pets.resume(&path).unwrap();
    pets.save(&path).unwrap();
    assert_eq!(classes(&path), Pets::CLASSES);
}

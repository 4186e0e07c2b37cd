//! The drawn pictures.

use std::fs;

use densenet_runtime::data::{Dataset, ImageFolder};
use drawn_pictures::{PictureSet, PicturesError, Subject, make};
use tempfile::TempDir;

const FEW: PictureSet = PictureSet {
    seed: 5,
    size: 48,
    train: 3,
    val: 2,
};

#[test]
fn pictures_are_made_once_and_read_as_a_folder_of_classes() {
    let dir = TempDir::new().unwrap();
    let made = dir.path().join("some/where");
    assert!(make(&made, &FEW).unwrap());
    assert!(!make(&made, &FEW).unwrap());
    let (train, val) = ImageFolder::train_and_val(&made, [32, 32]).unwrap();
    assert_eq!(train.classes(), Subject::ALL.map(Subject::name));
    assert_eq!((train.len(), val.len()), (30, 20));
    for index in 0..30 {
        train.load(index, None, &mut [0; 3072]).unwrap();
    }
    let leftovers = fs::read_dir(made.parent().unwrap()).unwrap().count();
    assert_eq!(leftovers, 1);
}

#[test]
fn the_same_seed_draws_the_same_pictures_and_none_twice() {
    let dir = TempDir::new().unwrap();
    let files = |name: &str, pictures: &PictureSet| {
        let made = dir.path().join(name);
        make(&made, pictures).unwrap();
        let mut files = Vec::new();
        for set in ["train", "val"] {
            let set = ImageFolder::open(made.join(set), [8, 8]).unwrap();
            files.extend((0..set.len()).map(|index| fs::read(set.path(index).unwrap()).unwrap()));
        }
        files
    };
    let first = files("first", &FEW);
    assert_eq!(first, files("again", &FEW));
    let others = files("others", &PictureSet { seed: 6, ..FEW });
    for (index, file) in first.iter().enumerate() {
        assert!(!first[..index].contains(file));
        assert!(!others.contains(file));
    }
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let dir = TempDir::new().unwrap();
    assert!(make(dir.path(), &FEW).unwrap(), "an empty folder is filled");
    let other = make(dir.path(), &PictureSet { train: 4, ..FEW }).unwrap_err();
    assert!(other.to_string().contains("train 3") && other.to_string().contains("train 4"));
    let taken = TempDir::new().unwrap();
    fs::write(taken.path().join("thesis.txt"), "precious").unwrap();
    assert!(matches!(
        make(taken.path(), &FEW),
        Err(PicturesError::Occupied { .. })
    ));
    assert!(taken.path().join("thesis.txt").is_file());
}

#[test]
fn pictures_that_cannot_be_drawn_are_refused() {
    let dir = TempDir::new().unwrap();
    for pictures in [
        PictureSet { size: 0, ..FEW },
        PictureSet {
            size: 1 << 20,
            ..FEW
        },
        PictureSet { val: 0, ..FEW },
    ] {
        let made = make(dir.path().join("new"), &pictures);
        assert!(
            matches!(made, Err(PicturesError::Options(_))),
            "{pictures:?}"
        );
    }
}

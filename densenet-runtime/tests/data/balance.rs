//! Weights of classes, against scikit-learn's definition and by hand.

use std::sync::Arc;

use densenet_runtime::data::{InMemory, Loader, class_weights, positive_weights};

use crate::several::{Several, several};

/// Images with independent labels of three animals.
fn animals(rows: &[[f32; 3]]) -> Several {
    let rows = rows.iter().map(|row| row.to_vec()).collect();
    several(rows, ["cat", "dog", "owl"])
}

fn exclusive(labels: &[u32]) -> InMemory {
    let classes = ["cat", "dog", "owl"].map(str::to_owned).to_vec();
    InMemory::new([1, 1, 1], vec![0; labels.len()], labels.to_vec(), classes).unwrap()
}

const UNKNOWN: f32 = f32::NAN;

#[test]
fn class_weights_are_scikit_learns_balanced_ones() {
    // compute_class_weight("balanced", classes=[0, 1, 2], y=[0, 0, 0, 0, 0, 1, 1, 2])
    let set = exclusive(&[0, 0, 0, 0, 0, 1, 1, 2]);
    let expected = [0.533_333_36, 1.333_333_4, 2.666_666_7];
    assert_eq!(class_weights(&set).unwrap(), expected);
}

#[test]
fn a_class_without_images_has_no_weight() {
    let message = class_weights(&exclusive(&[0, 2])).unwrap_err().to_string();
    assert!(message.contains("says yes for `dog`"), "{message}");
}

#[test]
fn positive_weights_are_known_noes_to_a_known_yes() {
    let set = animals(&[
        [1.0, 0.0, 0.25],
        [0.0, UNKNOWN, 0.25],
        [0.0, 1.0, UNKNOWN],
        [0.0, 1.0, UNKNOWN],
    ]);
    assert_eq!(positive_weights(&set).unwrap(), [3.0, 0.5, 3.0]);
}

#[test]
fn a_class_whose_known_labels_all_say_the_same_has_no_positive_weight() {
    let set = animals(&[[1.0, 0.0, 1.0], [0.0, UNKNOWN, 1.0]]);
    let message = positive_weights(&set).unwrap_err().to_string();
    assert!(message.contains("says yes for `dog`"), "{message}");
    let set = animals(&[[1.0, 0.0, 1.0], [0.0, 1.0, UNKNOWN]]);
    let message = positive_weights(&set).unwrap_err().to_string();
    assert!(message.contains("says no for `owl`"), "{message}");
}

#[test]
fn an_image_of_several_classes_is_drawn_for_the_rarest() {
    // Cats are common, dogs rare and always with cats; owls are unknown or not there.
    let rows: Vec<[f32; 3]> = (0..100)
        .map(|image| match image {
            0..40 => [0.0, 0.0, UNKNOWN],
            40..98 => [1.0, UNKNOWN, 0.0],
            _ => [1.0, 1.0, 0.0],
        })
        .collect();
    let loader = Loader::training(Arc::new(animals(&rows)), 100).unwrap();
    let loader = loader.balanced();
    let mut drawn = [0; 3];
    for epoch in 0..100 {
        let batch = loader.epoch(epoch).next().unwrap().unwrap();
        for &image in batch.pixels.bytes().unwrap() {
            drawn[usize::from(image >= 40) + usize::from(image >= 98)] += 1;
        }
    }
    // A third of 10,000 each: five standard deviations are 236.
    assert!(
        drawn.iter().all(|&n: &i32| n.abs_diff(3333) < 240),
        "{drawn:?}"
    );
}

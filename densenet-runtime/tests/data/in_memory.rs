//! Images in memory, and some images of a set: a mistake in what a program gives is refused by what it is.

use std::sync::Arc;

use densenet_runtime::data::{DataError, InMemory, Normalization, ShiftAndFlip, Subset};

/// An image of one pixel in each of two classes.
fn set(channels: usize) -> InMemory {
    let classes = ["a", "b"].map(String::from).to_vec();
    InMemory::new([channels, 1, 1], vec![0; 2 * channels], vec![0, 1], classes).unwrap()
}

fn made(shape: [usize; 3], bytes: usize, labels: &[u32]) -> Result<InMemory, DataError> {
    InMemory::new(shape, vec![0; bytes], labels.to_vec(), vec!["a".into()])
}

/// The message, which has all of these words.
fn refused<T>(result: Result<T, DataError>, words: &[&str]) {
    let message = result.err().expect("an error").to_string();
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn bytes_for_fewer_images_than_labels_are_refused() {
    refused(
        made([1, 2, 2], 4, &[0, 0]),
        &["1 images", "2 labels", "4 bytes"],
    );
}

#[test]
fn a_label_beyond_the_classes_is_refused() {
    refused(made([1, 2, 2], 4, &[1]), &["label", "1"]);
}

#[test]
fn images_without_pixels_are_refused() {
    refused(made([1, 0, 2], 0, &[]), &["[1, 0, 2]", "no pixels"]);
}

#[test]
fn a_padding_colour_with_a_byte_too_few_is_refused() {
    let varied = set(3).augmented(ShiftAndFlip::paper(vec![0]));
    refused(varied, &["1 bytes", "3 channels"]);
    refused(set(3).padded([2, 2], &[0, 0]), &["2 bytes", "3 channels"]);
}

#[test]
fn padding_to_a_smaller_size_is_refused() {
    refused(set(1).padded([0, 1], &[0]), &["1x1", "0x1"]);
}

#[test]
fn a_share_of_erased_images_beyond_1_is_refused() {
    for erase in [1.5, -0.1, f64::NAN] {
        let varied = set(1).augmented(ShiftAndFlip {
            erase,
            ..ShiftAndFlip::paper(vec![0])
        });
        refused(varied, &["from 0 to 1", &erase.to_string()]);
    }
}

#[test]
fn images_of_another_shape_are_not_joined() {
    refused(set(1).joined(set(3)), &["[3, 1, 1]", "[1, 1, 1]"]);
}

#[test]
fn images_of_other_classes_are_not_joined() {
    let other = InMemory::new([1, 1, 1], vec![0], vec![0], vec!["c".into()]).unwrap();
    refused(set(1).joined(other), &["c"]);
}

#[test]
fn an_image_beyond_the_set_is_in_no_subset() {
    let all = Arc::new(set(1));
    assert_eq!(
        Subset::new(all.clone(), vec![1, 0]).unwrap().images(),
        [1, 0]
    );
    refused(Subset::new(all, vec![0, 2]), &["image 2", "2 images"]);
}

#[test]
fn the_mean_colour_is_the_normalisations() {
    let set = set(3).normalized(Normalization::imagenet());
    assert_eq!(set.mean_colour(), [124, 116, 104]);
}

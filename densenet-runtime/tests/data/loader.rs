//! The loader: the same batches whatever happens around them.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use densenet_runtime::data::{
    DataError, Dataset, Depth, LoadedBatch, LoadedPixels, LoadedTargets, Loader, Mix,
    Normalization, OnBroken, PictureError, Rng, Target,
};

/// Images of two bytes, the index and a random number; some cannot be loaded.
struct Numbers {
    len: usize,
    views: usize,
    broken: Vec<usize>,
    panics: Option<usize>,
    /// Whether images are of three classes, and not each of its own.
    rare: bool,
    delay: Duration,
    loaded: AtomicUsize,
    classes: Vec<String>,
    normalization: Normalization,
}

fn numbers(len: usize) -> Numbers {
    Numbers {
        len,
        views: 1,
        broken: Vec::new(),
        panics: None,
        rare: false,
        delay: Duration::ZERO,
        loaded: AtomicUsize::new(0),
        classes: (0..len).map(|class| class.to_string()).collect(),
        normalization: Normalization::none(2),
    }
}

impl Dataset for Numbers {
    fn len(&self) -> usize {
        self.len
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn shape(&self) -> [usize; 3] {
        [2, 1, 1]
    }

    fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    fn views(&self) -> usize {
        self.views
    }

    fn target(&self, index: usize) -> Target<'_> {
        match self.rare {
            true => Target::Class(class_of(index as u8) as u32),
            false => Target::Class(index as u32),
        }
    }

    fn load(&self, index: usize, rng: Option<&mut Rng>, into: &mut [u8]) -> Result<(), DataError> {
        self.loaded.fetch_add(1, Ordering::Relaxed);
        // Late images come early and the other way round.
        thread::sleep(self.delay * (index % 3) as u32);
        assert_ne!(self.panics, Some(index), "number {index} is unlucky");
        let random = rng.map_or(0, |rng| rng.below(256) as u8);
        for view in into.chunks_exact_mut(2) {
            view.copy_from_slice(&[index as u8, random]);
        }
        if self.broken.contains(&index) {
            return Err(DataError::Picture {
                path: format!("{index}.jpg").into(),
                reason: PictureError::Broken("torn".to_owned()),
            });
        }
        Ok(())
    }
}

type Content = (usize, Vec<u8>, Vec<u32>);

fn content(batch: &LoadedBatch) -> Content {
    (
        batch.number,
        batch.pixels.bytes().unwrap().to_vec(),
        batch.labels().to_vec(),
    )
}

fn contents(batches: impl Iterator<Item = Result<LoadedBatch, DataError>>) -> Vec<Content> {
    batches.map(|batch| content(&batch.unwrap())).collect()
}

fn labels(batches: &[Content]) -> Vec<u32> {
    batches.iter().flat_map(|batch| batch.2.clone()).collect()
}

fn training(numbers: Numbers, batch: usize) -> Loader {
    Loader::training(Arc::new(numbers), batch).unwrap()
}

fn evaluation(numbers: Numbers, batch: usize) -> Loader {
    Loader::evaluation(Arc::new(numbers), batch).unwrap()
}

#[test]
fn batches_are_the_same_for_any_number_of_workers() {
    let with = |workers: usize, delay: u64| {
        let numbers = Numbers {
            delay: Duration::from_micros(delay),
            ..numbers(100)
        };
        let loader = training(numbers, 8).seeded(3).workers(workers);
        contents(loader.epoch(5))
    };
    let one = with(1, 0);
    assert_eq!(one.len(), 12);
    for workers in [2, 3, 7, 16] {
        assert_eq!(with(workers, 300), one, "{workers} workers");
    }
}

#[test]
fn seeds_and_epochs_give_other_batches_and_each_image_comes_once() {
    let epoch = |seed, epoch| contents(training(numbers(60), 6).seeded(seed).epoch(epoch));
    let all = [epoch(0, 0), epoch(0, 1), epoch(1, 0)];
    for (index, batches) in all.iter().enumerate() {
        let images: BTreeSet<u32> = labels(batches).into_iter().collect();
        assert_eq!(images.len(), 60);
        assert!(!all[..index].contains(batches));
    }
}

#[test]
fn an_epoch_resumed_in_the_middle_continues_unchanged() {
    let loader = training(numbers(50), 7).seeded(1);
    let whole = contents(loader.epoch(4));
    assert_eq!(whole.len(), loader.batches());
    for first in 0..=whole.len() {
        assert_eq!(contents(loader.epoch_from(4, first)), whole[first..]);
    }
    assert!(loader.epoch_from(4, usize::MAX).next().is_none());
}

#[test]
fn the_last_batch_is_dropped_in_training_unless_it_is_kept_or_the_only_one() {
    let sizes = |loader: Loader| -> Vec<usize> {
        let sizes: Vec<usize> = loader.epoch(0).map(|batch| batch.unwrap().size()).collect();
        assert_eq!(sizes.len(), loader.batches());
        sizes
    };
    assert_eq!(sizes(training(numbers(10), 4)), [4, 4]);
    assert_eq!(sizes(training(numbers(10), 4).keep_last()), [4, 4, 2]);
    assert_eq!(sizes(training(numbers(3), 4)), [3]);
    assert_eq!(sizes(evaluation(numbers(10), 4)), [4, 4, 2]);
    assert_eq!(sizes(evaluation(numbers(8), 4)), [4, 4]);
}

#[test]
fn evaluation_serves_every_image_in_order_as_it_is() {
    let batches = contents(evaluation(numbers(10), 4).epoch(3));
    assert_eq!(labels(&batches), (0..10).collect::<Vec<_>>());
    assert_eq!(batches[2].1, [8, 0, 9, 0]);
}

#[test]
fn views_are_for_evaluation_and_repeat_the_label() {
    let with_views = || Numbers {
        views: 3,
        broken: vec![1],
        ..numbers(3)
    };
    let loader = evaluation(with_views(), 3).on_broken(OnBroken::Skip);
    let batch = loader.epoch(0).next().unwrap().unwrap();
    assert_eq!((batch.size(), batch.views), (2, 3));
    assert_eq!(batch.labels(), [0, 0, 0, 2, 2, 2]);
    let expected: &[u8] = &[0, 0, 0, 0, 0, 0, 2, 0, 2, 0, 2, 0];
    assert_eq!(batch.pixels.bytes().unwrap(), expected);
    let loader = training(with_views(), 2).on_broken(OnBroken::Skip);
    let batch = loader.epoch(0).next().unwrap().unwrap();
    assert_eq!((batch.size(), batch.views, batch.pixels.len()), (2, 1, 4));
}

#[test]
fn a_broken_image_ends_the_epoch_at_its_batch_unless_it_is_skipped() {
    for workers in [1, 4] {
        let broken = Numbers {
            broken: vec![9, 14],
            delay: Duration::from_micros(200),
            ..numbers(40)
        };
        let loader = evaluation(broken, 4).workers(workers);
        let mut epoch = loader.epoch(0);
        assert_eq!(epoch.next().unwrap().unwrap().number, 0);
        assert_eq!(epoch.next().unwrap().unwrap().number, 1);
        let error = epoch.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("9.jpg") && error.contains("torn"), "{error}");
        assert!(epoch.next().is_none());
    }
}

#[test]
fn skipped_images_are_replaced_in_training_and_reported_once() {
    let broken = vec![2, 3, 17];
    let with = |workers: usize| {
        let reported = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&reported);
        let numbers = Numbers {
            broken: broken.clone(),
            ..numbers(20)
        };
        let loader = training(numbers, 5)
            .workers(workers)
            .on_broken(OnBroken::Skip)
            .report(move |broken| sink.lock().unwrap().push(broken.clone()));
        let batches = [contents(loader.epoch(0)), contents(loader.epoch(1))].concat();
        let mut reported = reported.lock().unwrap().clone();
        reported.sort_by_key(|broken| broken.index);
        assert_eq!(reported, loader.skipped());
        let indices: Vec<usize> = reported.iter().map(|broken| broken.index).collect();
        assert_eq!(indices, broken);
        assert!(reported[0].reason.contains("2.jpg"));
        batches
    };
    let batches = with(1);
    assert!(batches.iter().all(|batch| batch.2.len() == 5));
    assert!(
        labels(&batches)
            .iter()
            .all(|label| !broken.contains(&(*label as usize)))
    );
    assert_eq!(batches, with(4));
}

#[test]
fn skipped_images_are_left_out_in_evaluation() {
    let numbers = Numbers {
        broken: vec![0, 4, 5, 6, 7, 9],
        ..numbers(12)
    };
    let loader = evaluation(numbers, 4).on_broken(OnBroken::Skip);
    let batches = contents(loader.epoch(0));
    assert_eq!(batches[0], (0, vec![1, 0, 2, 0, 3, 0], vec![1, 2, 3]));
    // Nothing is left of batch 1.
    assert_eq!(batches[1], (2, vec![8, 0, 10, 0, 11, 0], vec![8, 10, 11]));
    assert_eq!(batches.len(), 2);
}

#[test]
fn a_dataset_of_only_broken_images_is_an_error_in_training() {
    let numbers = Numbers {
        broken: (0..8).collect(),
        ..numbers(8)
    };
    let loader = training(numbers, 4).on_broken(OnBroken::Skip);
    let error = loader.epoch(0).next().unwrap().unwrap_err();
    assert!(matches!(error, DataError::AllBroken { .. }), "{error}");
}

#[test]
fn a_panic_while_loading_is_an_error() {
    for workers in [1, 3] {
        let numbers = Numbers {
            panics: Some(6),
            ..numbers(20)
        };
        let loader = evaluation(numbers, 4)
            .workers(workers)
            .on_broken(OnBroken::Skip);
        let mut epoch = loader.epoch(0);
        assert!(epoch.next().unwrap().is_ok());
        let error = epoch.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("number 6 is unlucky"), "{error}");
        assert!(epoch.next().is_none());
    }
}

#[test]
fn dropping_an_epoch_early_stops_its_threads_after_the_image_at_hand() {
    let numbers = Arc::new(Numbers {
        delay: Duration::from_millis(10),
        ..numbers(200)
    });
    let loader = Loader::training(numbers.clone(), 20).unwrap().workers(2);
    let mut epoch = loader.epoch(0);
    assert!(epoch.next().unwrap().is_ok());
    drop(epoch);
    // Of the three batches that were handed out, two at least have not been loaded to the end.
    let loaded = numbers.loaded.load(Ordering::Relaxed);
    assert!(loaded < 60, "{loaded}");
    thread::sleep(Duration::from_millis(50));
    assert_eq!(numbers.loaded.load(Ordering::Relaxed), loaded);
    // Nothing else holds the dataset: the threads are gone.
    drop(loader);
    assert_eq!(Arc::strong_count(&numbers), 1);
}

#[test]
fn no_more_than_the_prefetch_depth_is_loaded_ahead() {
    let numbers = Arc::new(numbers(100));
    let loader = Loader::training(numbers.clone(), 10).unwrap().prefetch(2);
    let stays_at = |expected: usize| {
        let deadline = Instant::now() + Duration::from_secs(20);
        let loaded = || numbers.loaded.load(Ordering::Relaxed);
        while loaded() < expected && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(30));
        assert_eq!(loaded(), expected);
    };
    let mut epoch = loader.epoch(0);
    stays_at(20);
    assert!(epoch.next().unwrap().is_ok());
    stays_at(30);
}

#[test]
fn an_empty_loader_is_refused() {
    assert!(Loader::training(Arc::new(numbers(0)), 4).is_err());
    assert!(Loader::training(Arc::new(numbers(4)), 0).is_err());
}

#[test]
fn an_image_that_the_system_cannot_read_may_be_skipped() {
    let error = DataError::Io {
        action: "read",
        path: "a.jpg".into(),
        source: io::ErrorKind::PermissionDenied.into(),
    };
    assert!(error.is_about_one_image());
    assert!(!DataError::WorkersGone.is_about_one_image());
}

#[test]
fn shards_of_an_epoch_are_disjoint_equal_and_together_the_larger_batches() {
    // 26 images in batches of 3 for each of 4: two batches each, two images left over.
    let whole = contents(training(numbers(26), 12).seeded(7).epoch(3));
    let parts: Vec<_> = (0..4)
        .map(|rank| {
            let loader = training(numbers(26), 3).seeded(7).sharded(rank, 4).unwrap();
            assert_eq!(loader.batches(), 2);
            contents(loader.epoch(3))
        })
        .collect();
    assert_eq!(whole.len(), 2);
    for (number, batch) in whole.iter().enumerate() {
        let together = parts.iter().flat_map(|part| part[number].2.clone());
        assert_eq!(together.collect::<Vec<_>>(), batch.2, "batch {number}");
        let bytes = parts.iter().flat_map(|part| part[number].1.clone());
        assert_eq!(bytes.collect::<Vec<_>>(), batch.1, "varied alike");
    }
    assert!(parts.iter().all(|part| part.len() == 2));
    let served: BTreeSet<u32> = parts.iter().flat_map(|part| labels(part)).collect();
    assert_eq!(served.len(), 24, "no image is served twice");
}

#[test]
fn shards_of_an_evaluation_have_every_image_once() {
    for images in [4, 9, 10, 11] {
        let mut served: Vec<u32> = (0..4)
            .flat_map(|rank| {
                let loader = evaluation(numbers(images), 2).sharded(rank, 4).unwrap();
                let batches = contents(loader.epoch(0));
                assert_eq!(batches.len(), loader.batches());
                labels(&batches)
            })
            .collect();
        served.sort_unstable();
        assert!(served.iter().copied().eq(0..images as u32));
    }
}

#[test]
fn a_shards_epoch_resumes_where_it_stopped() {
    let part = || training(numbers(40), 3).seeded(1).sharded(1, 3).unwrap();
    let all = contents(part().epoch(2));
    assert_eq!(contents(part().epoch_from(2, 1)), all[1..]);
}

/// 100 images of classes of 90, 9 and 1.
fn rare() -> Numbers {
    Numbers {
        rare: true,
        ..numbers(100)
    }
}

fn class_of(image: u8) -> usize {
    usize::from(image >= 90) + usize::from(image == 99)
}

#[test]
fn balanced_sampling_makes_classes_and_their_images_equally_likely() {
    let loader = training(rare(), 10).seeded(3).balanced();
    let (mut classes, mut images) = ([0; 3], [0; 100]);
    for epoch in 0..300 {
        for (_, bytes, labels) in contents(loader.epoch(epoch)) {
            for (pixels, label) in bytes.chunks_exact(2).zip(labels) {
                assert_eq!(label as usize, class_of(pixels[0]));
                classes[label as usize] += 1;
                images[pixels[0] as usize] += 1;
            }
        }
    }
    // 30,000 images, a third of them in one class: five standard deviations are 408.
    assert!(
        classes.iter().all(|&n: &i32| n.abs_diff(10_000) < 410),
        "{classes:?}"
    );
    let of_first: &[i32] = &images[..90];
    assert!(of_first.iter().all(|&n| n.abs_diff(111) < 60), "{images:?}");
    let of_second = &images[90..99];
    assert!(
        of_second.iter().all(|&n| n.abs_diff(1111) < 170),
        "{images:?}"
    );
}

#[test]
fn an_image_that_is_drawn_twice_is_varied_twice() {
    let loader = training(rare(), 100).balanced();
    let (_, bytes, _) = &contents(loader.epoch(0))[0];
    let last = bytes.chunks_exact(2).filter(|pixels| pixels[0] == 99);
    let random: BTreeSet<u8> = last.clone().map(|pixels| pixels[1]).collect();
    assert!(random.len() > last.count() / 2);
}

#[test]
fn a_balanced_epoch_is_the_same_for_any_workers_and_resumes_where_it_stopped() {
    let loader = |workers| training(rare(), 8).seeded(5).balanced().workers(workers);
    let all = contents(loader(1).epoch(2));
    assert_eq!(all.len(), 12);
    assert_eq!(contents(loader(4).epoch(2)), all);
    assert_eq!(contents(loader(3).epoch_from(2, 7)), all[7..]);
    assert_ne!(contents(loader(1).epoch(3)), all);
}

#[test]
fn ranks_divide_a_balanced_epoch() {
    let whole = contents(training(rare(), 12).seeded(7).balanced().epoch(3));
    let parts: Vec<_> = (0..4)
        .map(|rank| {
            let loader = training(rare(), 3).seeded(7).balanced();
            contents(loader.sharded(rank, 4).unwrap().epoch(3))
        })
        .collect();
    assert_eq!(whole.len(), 8);
    for (number, batch) in whole.iter().enumerate() {
        let together = parts.iter().flat_map(|part| part[number].1.clone());
        assert_eq!(together.collect::<Vec<_>>(), batch.1, "batch {number}");
    }
}

#[test]
fn evaluation_is_never_balanced() {
    let plain = contents(evaluation(rare(), 7).epoch(0));
    assert_eq!(contents(evaluation(rare(), 7).balanced().epoch(0)), plain);
}

#[test]
fn impossible_shards_are_refused() {
    let refused = |loader: Result<Loader, DataError>| loader.unwrap_err().to_string();
    let error = refused(training(numbers(40), 3).sharded(3, 3));
    assert!(
        error.contains("rank 3 is not below the world size, 3"),
        "{error}"
    );
    let error = refused(training(numbers(11), 3).sharded(0, 4));
    assert!(error.contains("need at least 12"), "{error}");
    let error = refused(training(numbers(40), 3).keep_last().sharded(0, 4));
    assert!(error.contains("unequal in training"), "{error}");
    let late = training(numbers(10), 4).sharded(1, 2).unwrap().keep_last();
    let error = late.epoch(0).next().unwrap().unwrap_err().to_string();
    assert!(error.contains("unequal in training"), "{error}");
    assert!(evaluation(numbers(3), 2).sharded(0, 4).is_err());
    assert!(
        training(numbers(2), 3).sharded(0, 1).is_ok(),
        "alone is as before"
    );
}

/// Pixels and targets of the batches of an epoch, from one on.
fn mixed(loader: &Loader, epoch: u64, first: usize) -> Vec<(LoadedPixels, LoadedTargets)> {
    let batches = loader.epoch_from(epoch, first).map(|batch| batch.unwrap());
    batches
        .map(|batch| (batch.pixels.clone(), batch.targets.clone()))
        .collect()
}

#[test]
fn mixed_batches_are_the_same_for_any_number_of_workers_and_from_any_batch_on() {
    for (mixup, cutmix) in [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)] {
        let loader = || {
            let loader = training(numbers(24), 4);
            loader.mixed(Mix { mixup, cutmix }, 30).unwrap()
        };
        let whole = mixed(&loader().workers(1), 3, 0);
        assert_eq!(whole.len(), 6);
        assert!(mixed(&loader().workers(4), 3, 0) == whole);
        assert!(mixed(&loader(), 3, 2) == whole[2..]);
        assert!(mixed(&loader(), 4, 0) != whole);
        for (pixels, targets) in &whole {
            assert_eq!(pixels.floats().is_some(), mixup > 0.0);
            let LoadedTargets::Probabilities(rows) = targets else {
                panic!("no probabilities");
            };
            assert_eq!(rows.len(), 4 * 30);
            for row in rows.chunks(30) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                assert!(row.iter().filter(|&&share| share > 0.0).count() <= 2);
            }
        }
    }
}

#[test]
fn mixing_blends_what_would_have_been_served() {
    let plain = training(numbers(8), 4);
    let batch = plain.epoch(0).next().unwrap().unwrap();
    let mix = Mix {
        mixup: 1.0,
        cutmix: 0.0,
    };
    let mixed = training(numbers(8), 4).mixed(mix, 8).unwrap();
    assert_eq!(mixed.depth(), Depth::Floats);
    let blended = mixed.epoch(0).next().unwrap().unwrap();
    assert_eq!(blended.size(), 4);
    assert!(blended.labels().is_empty());
    let LoadedTargets::Probabilities(rows) = &blended.targets else {
        panic!("no probabilities");
    };
    let (bytes, floats) = (
        batch.pixels.bytes().unwrap(),
        blended.pixels.floats().unwrap(),
    );
    for at in 0..4 {
        let other = (at + 3) % 4;
        let share = rows[8 * at + batch.labels()[at] as usize];
        for value in 0..2 {
            let [own, other] = [at, other].map(|image| f32::from(bytes[2 * image + value]) / 255.0);
            let expected = share * own + (1.0 - share) * other;
            assert!((floats[2 * at + value] - expected).abs() < 1e-6);
        }
    }
}

#[test]
fn mixing_is_refused_where_it_makes_no_sense() {
    let mix = |mixup| Mix { mixup, cutmix: 0.0 };
    for (loader, mix, classes, words) in [
        (evaluation(numbers(8), 4), mix(1.0), 8, "only in training"),
        (training(numbers(8), 4), mix(1.0), 7, "set `classes: 8`"),
        (training(numbers(8), 4), mix(-1.0), 8, "alpha of mixup"),
        (training(numbers(8), 4), mix(f64::NAN), 8, "alpha of mixup"),
    ] {
        let error = loader.mixed(mix, classes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let loader = evaluation(numbers(8), 4).mixed(Mix::default(), 8).unwrap();
    assert_eq!(loader.depth(), Depth::Bytes);
}

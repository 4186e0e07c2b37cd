//! Folders of pictures, against torchvision and Pillow (`scripts/golden_data.py`).

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use densenet_runtime::data::{
    Crops, DataError, Dataset, ImageFolder, Loader, OnBroken, RandomResizedCrop, Rgb, Rng,
    check_fit, read,
};
use tempfile::TempDir;

use crate::golden;

/// A folder with copies of golden pictures: pairs of path and golden name.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (path, name) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(golden(name), path).unwrap();
    }
    dir
}

/// The evaluation views of the only picture of a folder.
fn views(folder: &ImageFolder) -> Vec<u8> {
    let mut bytes = vec![0; folder.views() * folder.shape().iter().product::<usize>()];
    folder.load(0, None, &mut bytes).unwrap();
    bytes
}

/// Largest and mean difference of bytes.
fn difference(a: &[u8], b: &[u8]) -> (u8, f64) {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = differences.clone().map(f64::from).sum();
    (differences.max().unwrap(), sum / a.len() as f64)
}

#[test]
fn the_centre_crop_is_torchvisions() {
    for name in ["wide", "tall", "small"] {
        let dir = folder(&[("class/picture.png", &format!("{name}.png"))]);
        let folder = ImageFolder::open(&dir, [32, 32]).unwrap();
        let expected = read(golden(&format!("{name}.centre.png"))).unwrap();
        // Rows and columns are resized in another order, with a rounding in between.
        let (most, mean) = difference(&views(&folder), &expected.pixels);
        assert!(most <= 1 && mean < 0.3, "{name}: {most}, {mean}");
    }
}

#[test]
fn the_ten_crops_are_torchvisions_in_its_order() {
    for name in ["wide", "tall", "small"] {
        let dir = folder(&[("class/picture.png", &format!("{name}.png"))]);
        let folder = ImageFolder::open(&dir, [32, 32])
            .unwrap()
            .evaluated(Crops::Ten);
        let expected = read(golden(&format!("{name}.ten.png"))).unwrap();
        let (most, mean) = difference(&views(&folder), &expected.pixels);
        assert!(most <= 1 && mean < 0.3, "{name}: {most}, {mean}");
    }
}

#[test]
fn a_single_picture_is_cropped_as_in_validation() {
    for name in ["wide", "tall", "small"] {
        let dir = folder(&[("class/picture.png", &format!("{name}.png"))]);
        let picture = read(golden(&format!("{name}.png"))).unwrap();
        for shown in [Crops::Centre, Crops::Ten] {
            let folder = ImageFolder::open(&dir, [32, 24]).unwrap().evaluated(shown);
            assert!(
                shown.show(&picture, [32, 24]).unwrap() == views(&folder),
                "{name}"
            );
        }
    }
    let picture = read(golden("wide.png")).unwrap();
    let error = Crops::Centre.show(&picture, [0, 32]).unwrap_err();
    assert!(error.to_string().contains("0x32"), "{error}");
}

#[test]
fn a_crop_is_resized_as_torchvision_does_and_mirrored_half_of_the_time() {
    for (name, aspect) in [("wide", 90.0 / 61.0), ("tall", 40.0 / 77.0)] {
        let dir = folder(&[("class/picture.png", &format!("{name}.png"))]);
        // The only crop with this area and aspect ratio is the whole picture.
        let folder = ImageFolder::open(&dir, [32, 32])
            .unwrap()
            .cropped(RandomResizedCrop {
                area: (1.0, 1.0),
                aspect: (aspect, aspect),
            });
        let plain = read(golden(&format!("{name}.whole.png"))).unwrap().pixels;
        let mirrored = mirrored(&plain, 32);
        let mut mirrored_count = 0;
        for epoch in 0..40 {
            let mut bytes = vec![0; 32 * 32 * 3];
            let mut rng = Rng::new(0, epoch, 0);
            folder.load(0, Some(&mut rng), &mut bytes).unwrap();
            let is_mirrored = difference(&bytes, &mirrored).0 <= 1;
            assert!(is_mirrored || difference(&bytes, &plain).0 <= 1, "{name}");
            mirrored_count += usize::from(is_mirrored);
        }
        assert!((10..=30).contains(&mirrored_count), "{mirrored_count}");
    }
}

fn mirrored(image: &[u8], width: usize) -> Vec<u8> {
    let rows = image.chunks_exact(3 * width);
    rows.flat_map(|row| row.chunks_exact(3).rev().flatten().copied())
        .collect()
}

#[test]
fn images_of_other_shapes_are_served_as_asked() {
    let dir = folder(&[
        ("class/wide.png", "wide.png"),
        ("class/tall.png", "tall.png"),
    ]);
    for size in [[48, 20], [20, 48], [1, 1], [224, 224]] {
        let folder = ImageFolder::open(&dir, size).unwrap().evaluated(Crops::Ten);
        assert_eq!(folder.shape(), [3, size[0], size[1]]);
        let image = 3 * size[0] * size[1];
        for index in 0..2 {
            folder.load(index, None, &mut vec![0; 10 * image]).unwrap();
            for epoch in 0..20 {
                let mut rng = Rng::new(0, epoch, index as u64);
                folder
                    .load(index, Some(&mut rng), &mut vec![0; image])
                    .unwrap();
            }
        }
    }
}

#[test]
fn every_pixel_type_becomes_pillows_rgb() {
    let names = [
        "rgba.png",
        "grey.png",
        "grey_alpha.png",
        "grey16.png",
        "palette.png",
        "one_bit.png",
        "rgb.jpg",
        "grey.jpg",
        "subsampled.jpg",
        "progressive.jpg",
        "turned.jpg",
        "cmyk.jpg",
    ];
    for name in names {
        let found = read(golden(&format!("formats/{name}"))).unwrap();
        let expected = read(golden(&format!("formats/{name}.expected.png"))).unwrap();
        assert!(found == expected, "{name}");
    }
}

#[test]
fn a_picture_that_ends_early_is_broken_wherever_it_ends() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("cut");
    for (name, end) in [
        // Up to the end marker.
        ("rgb.jpg", 2),
        ("progressive.jpg", 2),
        ("grey.jpg", 2),
        ("turned.jpg", 2),
        // Up to the last chunk, and the checksums of the data.
        ("rgba.png", 20),
        ("palette.png", 20),
    ] {
        let whole = fs::read(golden(&format!("formats/{name}"))).unwrap();
        let expected = read(golden(&format!("formats/{name}"))).unwrap();
        let end = whole.len() - end;
        // Here and there, and at each of the last bytes.
        let lengths = (0..end).filter(|at| at % 13 == 0 || at + 24 > end);
        for length in lengths {
            fs::write(&path, &whole[..length]).unwrap();
            match read(&path) {
                Err(DataError::Picture { path: at, .. }) => assert_eq!(at, path),
                // All pixels may be there before the data end.
                Ok(found) if found == expected => {}
                _ => panic!("{name} cut to {length} bytes"),
            }
        }
        fs::write(&path, &whole[..end]).unwrap();
        assert!(read(&path).unwrap() == expected, "{name}");
    }
}

#[test]
fn the_contents_tell_the_format_not_the_name() {
    let dir = folder(&[("a/really_a_png.jpg", "wide.png")]);
    let Rgb { width, height, .. } = read(dir.path().join("a/really_a_png.jpg")).unwrap();
    assert_eq!((width, height), (90, 61));
}

#[test]
fn classes_are_sorted_and_pictures_found_as_torchvision_finds_them() {
    let dir = folder(&[
        ("b/2.JPG", "formats/rgb.jpg"),
        ("b/1.png", "small.png"),
        ("b/deeper/3.jpeg", "formats/grey.jpg"),
        ("b/deeper/4.TIFF", "small.png"),
        ("b/deeper/5.webp", "small.png"),
        ("a/x.jpg", "formats/grey.jpg"),
        ("a/.hidden.jpg", "formats/grey.jpg"),
        (".cache/y.jpg", "formats/grey.jpg"),
        ("a/notes.txt", "crops.csv"),
        ("list.csv", "crops.csv"),
    ]);
    let folder = ImageFolder::open(&dir, [8, 8]).unwrap();
    assert_eq!(folder.classes(), ["a", "b"]);
    let found: Vec<(PathBuf, u32)> = (0..folder.len())
        .map(|index| {
            folder.load(index, None, &mut [0; 192]).unwrap();
            let path = folder.path(index).unwrap();
            assert_eq!(path, dir.path().join(folder.name(index)));
            (path, folder.target(index).class().unwrap())
        })
        .collect();
    let expected = [
        ("a/x.jpg", 0),
        ("b/1.png", 1),
        ("b/2.JPG", 1),
        ("b/deeper/3.jpeg", 1),
        ("b/deeper/4.TIFF", 1),
        ("b/deeper/5.webp", 1),
    ];
    assert_eq!(
        found,
        expected.map(|(path, label)| (dir.path().join(path), label))
    );
}

#[test]
fn files_of_other_formats_are_counted_by_extension() {
    let dir = folder(&[
        ("a/1.png", "small.png"),
        ("a/2.heic", "small.png"),
        ("a/deeper/3.HEIC", "small.png"),
        ("a/.hidden.avif", "small.png"),
        ("b/1.png", "small.png"),
        ("b/2.avif", "small.png"),
        ("b/notes", "crops.csv"),
    ]);
    let folder = ImageFolder::open(&dir, [8, 8]).unwrap();
    assert_eq!(folder.len(), 2);
    let left_out: Vec<_> = folder
        .left_out()
        .iter()
        .map(|(e, n)| (e.as_str(), *n))
        .collect();
    assert_eq!(left_out, [("", 1), ("avif", 1), ("heic", 2)]);
}

#[cfg(unix)]
#[test]
fn a_dangling_link_is_a_picture_that_cannot_be_read() {
    let dir = folder(&[("a/1.png", "small.png"), ("b/1.png", "small.png")]);
    let link = dir.path().join("a/2.jpg");
    std::os::unix::fs::symlink("nowhere.jpg", &link).unwrap();
    std::os::unix::fs::symlink("nowhere.txt", dir.path().join("a/notes.txt")).unwrap();
    let folder = ImageFolder::open(&dir, [8, 8]).unwrap();
    assert_eq!(folder.len(), 3);
    assert_eq!(folder.path(1), Some(link.clone()));
    let error = folder.load(1, None, &mut [0; 192]).unwrap_err();
    assert!(error.is_about_one_image(), "{error}");
    let message = error.to_string();
    assert!(message.contains(&link.display().to_string()), "{message}");
    // A loader reports it and continues.
    let loader = Loader::evaluation(Arc::new(folder), 4)
        .unwrap()
        .on_broken(OnBroken::Skip);
    let batches: Vec<_> = loader.epoch(0).map(|batch| batch.unwrap().size()).collect();
    assert_eq!(batches, [2]);
    assert_eq!(loader.skipped().len(), 1);
}

#[test]
fn errors_of_a_folder_name_its_path() {
    let message = |dir: &Path| ImageFolder::open(dir, [8, 8]).unwrap_err().to_string();
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing");
    assert!(message(&missing).starts_with(&format!("{} is missing", missing.display())));
    assert!(message(dir.path()).contains("no class folders"));
    let class = dir.path().join("empty");
    fs::create_dir(&class).unwrap();
    assert!(message(dir.path()).starts_with(&format!("class folder {}", class.display())));
    let no_size = ImageFolder::open(dir.path(), [0, 8])
        .unwrap_err()
        .to_string();
    assert!(no_size.contains("0x8"), "{no_size}");
}

#[test]
fn training_and_validation_must_have_the_same_classes() {
    let dir = folder(&[
        ("train/a/1.png", "small.png"),
        ("train/b/1.png", "small.png"),
        ("val/a/1.png", "small.png"),
    ]);
    let error = ImageFolder::train_and_val(&dir, [8, 8]).unwrap_err();
    assert!(
        error.to_string().contains("validation lacks `b`"),
        "{error}"
    );
}

#[test]
fn data_that_does_not_fit_a_network_is_refused() {
    let dir = folder(&[("a/1.png", "small.png"), ("b/1.png", "small.png")]);
    let folder = ImageFolder::open(&dir, [8, 8]).unwrap();
    check_fit(&folder, [3, 8, 8], 2).unwrap();
    let shape = check_fit(&folder, [1, 8, 8], 2).unwrap_err();
    assert!(matches!(shape, DataError::Shape { .. }));
    let classes = check_fit(&folder, [3, 8, 8], 1).unwrap_err();
    assert!(classes.to_string().contains("`classes: 2`"), "{classes}");
}

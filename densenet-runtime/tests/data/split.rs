//! Splits: shares, classes and groups, the file, and what is refused.

use std::{collections::BTreeSet, fs, sync::Arc};

use densenet_runtime::data::{
    Columns, Dataset, InMemory, Loader, Rng, Split, Subset, Table, check_apart,
};
use tempfile::TempDir;

use crate::several::several;

/// Images of one pixel with these labels.
fn labelled(labels: &[u32]) -> InMemory {
    let classes = labels.iter().max().unwrap() + 1;
    let classes = (0..classes).map(|class| class.to_string()).collect();
    let images = (0..labels.len()).map(|image| image as u8).collect();
    InMemory::new([1, 1, 1], images, labels.to_vec(), classes).unwrap()
}

/// Labels, `counts[c]` of them for class `c`, in random order.
fn labels(counts: &[usize], seed: u64) -> Vec<u32> {
    let classes = (0..).zip(counts);
    let mut labels: Vec<u32> = classes
        .flat_map(|(class, &count)| std::iter::repeat_n(class, count))
        .collect();
    Rng::new(seed, 0, 0).shuffle(&mut labels);
    labels
}

/// How many images of each class validate.
fn validating(split: &Split, labels: &[u32]) -> Vec<usize> {
    let mut counts = vec![0; *labels.iter().max().unwrap() as usize + 1];
    for image in split.val() {
        counts[labels[image] as usize] += 1;
    }
    counts
}

fn check_parts(split: &Split, images: usize) {
    let (train, val) = (split.train(), split.val());
    assert!(!train.is_empty() && !val.is_empty());
    let all: BTreeSet<usize> = train.iter().chain(&val).copied().collect();
    assert_eq!(all.len(), train.len() + val.len(), "an image is in both");
    assert!(all.into_iter().eq(0..images));
}

/// What scikit-learn's `StratifiedShuffleSplit` draws from each class (`scripts/golden_splits.py`).
#[test]
fn each_class_has_its_share_as_scikit_learn_divides_it() {
    let golden = include_str!("golden/splits.csv");
    let mut cases = 0;
    for line in golden.lines().skip(1) {
        let mut columns = line.split(',').map(|cell| {
            let numbers = cell.split(' ').map(|number| number.parse().unwrap());
            numbers.collect::<Vec<f64>>()
        });
        let mut next = || columns.next().unwrap();
        let (share, counts, expected) = (next()[0], next(), next());
        let counts: Vec<usize> = counts.iter().map(|&count| count as usize).collect();
        for seed in 0..5 {
            let labels = labels(&counts, seed);
            let split = Split::draw(&labelled(&labels), None, share, seed).unwrap();
            check_parts(&split, labels.len());
            let wanted = (share * labels.len() as f64).round() as usize;
            assert_eq!(split.val().len(), wanted);
            for (found, expected) in validating(&split, &labels).iter().zip(&expected) {
                assert!((*found as f64 - expected).abs() <= 1.0, "{line}: {found}");
            }
        }
        cases += 1;
    }
    assert!(cases >= 20);
}

#[test]
fn a_class_of_one_image_trains() {
    let labels = labels(&[1, 1, 1, 30], 3);
    for seed in 0..20 {
        let split = Split::draw(&labelled(&labels), None, 0.4, seed).unwrap();
        assert_eq!(validating(&split, &labels)[..3], [0, 0, 0]);
    }
    // Unless there is nothing else.
    let split = Split::draw(&labelled(&[0, 1, 2, 3]), None, 0.5, 0).unwrap();
    check_parts(&split, 4);
}

#[test]
fn the_seed_decides_which_images_validate_on_every_machine() {
    let set = labelled(&labels(&[10, 10], 0));
    let draw = |seed| Split::draw(&set, None, 0.2, seed).unwrap();
    assert_eq!(draw(1), draw(1));
    assert_eq!(draw(1).val(), [2, 7, 12, 18]);
    let others: BTreeSet<Vec<usize>> = (0..10).map(|seed| draw(seed).val()).collect();
    assert!(others.len() > 5);
}

#[test]
fn independent_classes_have_their_share_each() {
    // Classes of 2% to 40%, some of which come together, and unknown labels.
    let mut rng = Rng::new(4, 0, 0);
    let shares = [0.4, 0.2, 0.1, 0.05, 0.02];
    let rows: Vec<Vec<f32>> = (0..2000)
        .map(|_| {
            let mut row: Vec<f32> = shares
                .iter()
                .map(|&share| match rng.unit() {
                    unit if unit < share => 1.0,
                    unit if unit > 0.9 => f32::NAN,
                    _ => 0.0,
                })
                .collect();
            if row[3] == 1.0 {
                row[1] = 1.0;
            }
            row
        })
        .collect();
    for seed in 0..3 {
        let set = several(rows.clone(), 0..rows[0].len());
        let split = Split::draw(&set, None, 0.2, seed).unwrap();
        check_parts(&split, 2000);
        assert!(
            split.val().len().abs_diff(400) <= 1,
            "{}",
            split.val().len()
        );
        for class in 0..shares.len() {
            let count = |images: &[usize]| {
                let rows = images.iter().map(|&image| &rows[image]);
                rows.filter(|row| row[class] == 1.0).count() as f64
            };
            let all: Vec<usize> = (0..2000).collect();
            let (own, all) = (count(&split.val()), count(&all));
            assert!((own - 0.2 * all).abs() <= 1.0, "{class}: {own} of {all}");
        }
    }
}

/// Groups of 1 to `most` images, as many as images are needed.
fn groups(images: usize, most: usize, rng: &mut Rng) -> Vec<Box<str>> {
    let mut groups = Vec::new();
    let mut group = 0;
    while groups.len() < images {
        let size = 1 + rng.below(most);
        for _ in 0..size.min(images - groups.len()) {
            groups.push(format!("patient {group}").into());
        }
        group += 1;
    }
    rng.shuffle(&mut groups);
    groups
}

#[test]
fn no_group_is_in_both_sets_and_the_share_is_met() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed, 1, 0);
        let labels = labels(&[300, 100, 20], seed);
        let groups = groups(420, 8, &mut rng);
        let split = Split::draw(&labelled(&labels), Some(&groups), 0.2, seed).unwrap();
        check_parts(&split, 420);
        split.check_groups(&groups).unwrap();
        assert!(split.val().len().abs_diff(84) <= 1, "{}", split.val().len());
        for (own, all) in validating(&split, &labels).iter().zip([300, 100, 20]) {
            assert!(own.abs_diff(all / 5) <= 2 + all / 50, "{own} of {all}");
        }
    }
}

#[test]
fn large_groups_come_as_near_to_the_share_as_moving_one_can() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed, 2, 0);
        let sizes: Vec<usize> = (0..2 + rng.below(8)).map(|_| 1 + rng.below(40)).collect();
        let groups: Vec<Box<str>> = sizes
            .iter()
            .enumerate()
            .flat_map(|(group, &size)| std::iter::repeat_n(group.to_string().into(), size))
            .collect();
        let images = groups.len();
        let split = Split::draw(&labelled(&vec![0; images]), Some(&groups), 0.3, seed).unwrap();
        check_parts(&split, images);
        split.check_groups(&groups).unwrap();
        let off = |val: f64| (val - 0.3 * images as f64).abs();
        let val: BTreeSet<usize> = split
            .val()
            .iter()
            .map(|&i| groups[i].parse().unwrap())
            .collect();
        let own = off(split.val().len() as f64);
        for (group, &size) in sizes.iter().enumerate() {
            let (after, left) = match val.contains(&group) {
                true => (split.val().len() as f64 - size as f64, val.len() - 1),
                false => ((split.val().len() + size) as f64, val.len() + 1),
            };
            if (1..sizes.len()).contains(&left) {
                assert!(own <= off(after) + 1e-6, "{sizes:?} {val:?} {group}");
            }
        }
    }
}

#[test]
fn two_groups_are_one_for_each_set() {
    let groups: Vec<Box<str>> = ["a", "a", "a", "a", "b"].map(Into::into).into();
    let split = Split::draw(&labelled(&[0; 5]), Some(&groups), 0.2, 0).unwrap();
    assert_eq!(split.val(), [4]);
}

#[test]
fn a_share_or_groups_that_cannot_be_are_refused() {
    let set = labelled(&[0, 0, 1]);
    let refused = |groups: Option<&[Box<str>]>, share: f64| {
        let error = Split::draw(&set, groups, share, 0).unwrap_err();
        error.to_string()
    };
    for share in [0.0, 1.0, -0.5, f64::NAN] {
        assert!(refused(None, share).contains("above 0 and below 1"));
    }
    let one: Vec<Box<str>> = vec!["a".into(); 3];
    assert!(refused(Some(&one), 0.2).contains("at least two groups, but there is 1"));
    assert!(
        refused(Some(&one[..2]), 0.2).contains("there are 3 images, but names of groups for 2")
    );
    let one = labelled(&[0]);
    let error = Split::draw(&one, None, 0.5, 0).unwrap_err().to_string();
    assert!(error.contains("at least two images"), "{error}");
}

#[test]
fn a_group_in_both_sets_is_an_error_that_names_it() {
    let groups: Vec<Box<str>> = ["a", "b", "a", "c"].map(Into::into).into();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("split.csv");
    fs::write(&file, "path,set\n0,train\n1,train\n2,val\n3,val\n").unwrap();
    let split = Split::read(&labelled(&[0; 4]), &file).unwrap();
    let error = split.check_groups(&groups).unwrap_err().to_string();
    assert!(
        error.contains("1 groups are in both training and validation, such as `a`"),
        "{error}"
    );
    assert!(split.check_groups(&groups[..3]).is_err());
}

#[test]
fn tables_that_share_a_group_or_a_picture_are_refused() {
    let dir = TempDir::new().unwrap();
    let table = |name: &str, text: &str| {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        let columns = Columns {
            group: Some("patient".to_owned()),
            ..Columns::default()
        };
        Table::read(file, &columns).unwrap()
    };
    let train = table("train.csv", "path,patient,cat\na,Ann,1\nb,Bob,0\n");
    let apart = table("apart.csv", "path,patient,cat\nc,Cyd,1\n");
    check_apart(&train, &apart).unwrap();
    let group = table("group.csv", "path,patient,cat\nc,Bob,1\n");
    let error = check_apart(&train, &group).unwrap_err().to_string();
    assert!(
        error.contains("groups are in both training and validation, such as `Bob`"),
        "{error}"
    );
    for same in ["b", "./b"] {
        let text = format!("path,patient,cat\n{same},Cyd,1\n");
        let picture = table("picture.csv", &text);
        let error = check_apart(&train, &picture).unwrap_err().to_string();
        assert!(error.contains("1 pictures are in"), "{error}");
    }
}

#[test]
fn a_split_is_read_as_it_was_written() {
    let dir = TempDir::new().unwrap();
    let listed = dir.path().join("table.csv");
    fs::write(
        &listed,
        "path,label\n\"a,1.png\",x\nb \"2\".png,y\nc.png,x\nd.png,y\n",
    )
    .unwrap();
    let table = Table::read(&listed, &Columns::default()).unwrap();
    let pictures = densenet_runtime::data::Pictures::sized([8, 8]).unwrap();
    let set = densenet_runtime::data::TablePictures::new(table, pictures).unwrap();
    let split = Split::draw(&set, None, 0.5, 2).unwrap();
    let file = dir.path().join("split.csv");
    split.write(&set, &file).unwrap();
    assert_eq!(Split::read(&set, &file).unwrap(), split);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("path,set\n\"a,1.png\","), "{text}");
}

#[test]
fn a_file_that_is_not_the_split_of_the_data_is_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("split.csv");
    let set = labelled(&[0, 1, 0]);
    let refused = |text: &str| {
        fs::write(&file, text).unwrap();
        Split::read(&set, &file).unwrap_err().to_string()
    };
    let error = refused("path,label\n0,train\n");
    assert!(
        error.contains("columns are `path`, `label`, but"),
        "{error}"
    );
    let error = refused("path,set\n0,train\n1,test\n2,val\n");
    assert!(
        error.contains("line 3, column `set`: the set `test` is neither"),
        "{error}"
    );
    let error = refused("path,set\n0,train\n1,val\n2,val\n\n1,train\n");
    assert!(
        error.contains("line 6, column `path`: `1` is in the split twice"),
        "{error}"
    );
    let error = refused("path,set\n0,train\n1,val\n2,val\n7,val\n");
    assert!(
        error.contains("1 of its pictures are not in the data, such as `7`"),
        "{error}"
    );
    let error = refused("path,set\n0,train\n1,val\n");
    assert!(
        error.contains("1 pictures of the data are not in it, such as `2`"),
        "{error}"
    );
    let error = refused("path,set\n0,train\n1,train\n2,train\n");
    assert!(error.contains("no picture is in the set `val`"), "{error}");
    let error = refused("path,set\n0,train,x\n");
    assert!(error.contains("line 2: has 3 cells"), "{error}");
    let error = Split::read(&set, dir.path().join("none.csv")).unwrap_err();
    assert!(error.to_string().contains("none.csv"));
}

#[test]
fn the_parts_of_a_split_serve_their_images() {
    let set = labelled(&labels(&[6, 6], 1));
    let split = Split::draw(&set, None, 0.25, 1).unwrap();
    let (train, val) = split.divide(Arc::new(set.clone())).unwrap();
    assert_eq!((train.len(), val.len()), (9, 3));
    let loader = Loader::evaluation(Arc::new(val), 3).unwrap();
    let batch = loader.epoch(0).next().unwrap().unwrap();
    let expected: Vec<u8> = split.val().iter().map(|&image| image as u8).collect();
    assert_eq!(batch.pixels.bytes().unwrap(), expected);
    let targets: Vec<_> = split
        .val()
        .iter()
        .map(|&i| set.target(i).class().unwrap())
        .collect();
    assert_eq!(batch.labels(), targets);
    assert!(Subset::new(Arc::new(set), vec![0, 12]).is_err());
}

#[test]
fn a_folder_without_sets_is_split_too() {
    let dir = TempDir::new().unwrap();
    for class in ["cat", "dog"] {
        fs::create_dir(dir.path().join(class)).unwrap();
        for picture in 0..10 {
            fs::write(dir.path().join(class).join(format!("{picture}.png")), []).unwrap();
        }
    }
    let folder = densenet_runtime::data::ImageFolder::open(&dir, [8, 8]).unwrap();
    let split = Split::draw(&folder, None, 0.2, 0).unwrap();
    let cats = split
        .val()
        .iter()
        .filter(|&&image| folder.name(image).starts_with("cat"))
        .count();
    assert_eq!((cats, split.val().len()), (2, 4));
}

#[cfg(unix)]
#[test]
fn files_whose_names_are_not_utf8_keep_their_sets() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let dir = TempDir::new().unwrap();
    let cat = dir.path().join("cat");
    fs::create_dir(&cat).unwrap();
    for name in [b"\xca.jpg", b"\xcb.jpg", b"\xcc.jpg", b"\xcd.jpg"] {
        fs::write(cat.join(OsStr::from_bytes(name)), "x").unwrap();
    }
    let set = densenet_runtime::data::ImageFolder::open(&dir, [8, 8]).unwrap();
    let file = dir.path().join("split.csv");
    for seed in 0..4 {
        let split = Split::draw(&set, None, 0.5, seed).unwrap();
        split.write(&set, &file).unwrap();
        assert_eq!(Split::read(&set, &file).unwrap(), split);
    }
}

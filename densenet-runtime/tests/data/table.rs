//! Tables of pictures: every form of label, and every rule about bad input.

use std::{fs, path::Path, sync::Arc};

use densenet_runtime::{
    Targets,
    data::{
        Columns, DataError, Dataset, LabelKind, Labels, Loader, OnBroken, Pictures, Table,
        TablePictures, Target, check_fit,
    },
};
use tempfile::TempDir;

use crate::golden;

fn parsed(name: &str, text: impl AsRef<[u8]>, columns: &Columns) -> Result<Table, DataError> {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join(name);
    fs::write(&file, text).unwrap();
    Table::read(file, columns)
}

fn table(text: impl AsRef<[u8]>, columns: &Columns) -> Table {
    parsed("table.csv", text, columns).unwrap()
}

/// The message of a table that is refused, from the file's name on.
fn refused(text: impl AsRef<[u8]>, columns: &Columns) -> String {
    let message = parsed("table.csv", text, columns).unwrap_err().to_string();
    let name = message.find("table.csv").unwrap();
    message[name..].to_owned()
}

fn by_rule() -> Columns {
    Columns::default()
}

fn independent(table: &Table) -> Vec<Option<f32>> {
    match table.labels() {
        Labels::Independent(values) => values.iter().map(|v| (!v.is_nan()).then_some(*v)).collect(),
        labels => panic!("{labels:?}"),
    }
}

fn paths(table: &Table) -> Vec<&str> {
    (0..table.len()).map(|i| table.path(i).unwrap()).collect()
}

fn of_names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn columns_of_classes_have_yes_no_shares_and_unknown() {
    let table = table(
        "path,cat,dog,sheep\na.png,1,0,0.25\nb.png,,nan,-1\nc.png,NaN,-1.0,1.0\n",
        &by_rule(),
    );
    assert_eq!(table.classes(), ["cat", "dog", "sheep"]);
    let (yes, no) = (Some(1.0), Some(0.0));
    let expected = [yes, no, Some(0.25), None, None, None, None, None, yes];
    assert_eq!(independent(&table), expected);
    assert_eq!(paths(&table), ["a.png", "b.png", "c.png"]);
}

#[test]
fn a_column_of_names_has_sorted_classes() {
    let table = table("path,label\n1,dog\n2,cat\n3,dog\n", &by_rule());
    assert_eq!(table.classes(), ["cat", "dog"]);
    assert_eq!(*table.labels(), Labels::Classes(vec![1, 0, 1]));
}

#[test]
fn the_only_other_column_has_names_unless_all_are_numbers() {
    let names = table("path,breed\n1,pug\n2,0\n", &by_rule());
    assert_eq!(names.classes(), ["0", "pug"]);
    let numbers = table("path,pug\n1,1\n2,0\n3,\n", &by_rule());
    assert_eq!(numbers.classes(), ["pug"]);
    assert_eq!(independent(&numbers), [Some(1.0), Some(0.0), None]);
    let label = table("path,label\n1,1\n2,0\n", &by_rule());
    assert_eq!(*label.labels(), Labels::Classes(vec![1, 0]));
    let exclusive = Columns {
        kind: Some(LabelKind::Exclusive),
        ..by_rule()
    };
    let asked = table("path,pug\n1,1\n2,0\n", &exclusive);
    assert_eq!(asked.classes(), ["0", "1"]);
}

#[test]
fn several_names_in_a_cell_are_independent_classes() {
    let columns = Columns {
        no_class: Some("No Finding".to_owned()),
        ..by_rule()
    };
    let text = "Image Index,Finding Labels,Age\n1.png,Mass|Edema,58\n2.png,No Finding,3\n3.png,,9\n4.png,Edema | Mass,1\n";
    let table = table(text, &columns);
    assert_eq!(table.classes(), ["Edema", "Mass"]);
    let (yes, no) = (Some(1.0), Some(0.0));
    assert_eq!(
        independent(&table),
        [yes, yes, no, no, None, None, yes, yes]
    );
}

#[test]
fn columns_and_classes_may_be_named() {
    let columns = Columns {
        path: Some("where".to_owned()),
        labels: of_names(&["dog", "cat"]),
        group: Some("owner".to_owned()),
        suffix: ".jpg".to_owned(),
        ..by_rule()
    };
    let text = "age,cat,where,owner,dog\n3,1,a,Ann,0\n4,0,b,Bob,1\n";
    let found = table(text, &columns);
    assert_eq!(found.classes(), ["dog", "cat"]);
    assert_eq!(independent(&found)[..2], [Some(0.0), Some(1.0)]);
    assert_eq!(paths(&found), ["a.jpg", "b.jpg"]);
    let groups: Vec<_> = found.groups().unwrap().iter().map(|g| &**g).collect();
    assert_eq!(groups, ["Ann", "Bob"]);

    let given = Columns {
        classes: of_names(&["dog", "bird", "cat"]),
        ..by_rule()
    };
    let found = table("path,kind\n1,cat\n2,dog\n", &given);
    assert_eq!(*found.labels(), Labels::Classes(vec![2, 0]));
    let of_columns = Columns {
        classes: of_names(&["dog", "cat"]),
        ..by_rule()
    };
    let found = table("path,cat,dog,age\n1,0,1,77\n", &of_columns);
    assert_eq!(independent(&found), [Some(1.0), Some(0.0)]);
}

#[test]
fn a_second_table_is_read_as_the_first() {
    let train = table("path,kind\n1,0\n2,1\n3,2\n", &by_rule());
    assert_eq!(train.classes(), ["0", "1", "2"]);
    let val = table("path,kind\n4,1\n5,0\n", train.columns());
    assert_eq!(*val.labels(), Labels::Classes(vec![1, 0]));
    let train = table("path,kind\n1,a|b\n2,b\n", &by_rule());
    let val = table("path,kind\n4,b\n", train.columns());
    assert_eq!(independent(&val), [Some(0.0), Some(1.0)]);
    let train = table("path,a,b\n1,0,1\n", &by_rule());
    let val = table("path,b,c,a\n1,0,x,1\n", train.columns());
    assert_eq!(independent(&val), [Some(1.0), Some(0.0)]);
}

#[test]
fn one_hot_columns_may_be_exclusive() {
    let exclusive = Columns {
        kind: Some(LabelKind::Exclusive),
        ..by_rule()
    };
    let found = table("image,MEL,NV\nISIC_1,0.0,1.0\nISIC_2,1,0\n", &exclusive);
    assert_eq!(*found.labels(), Labels::Classes(vec![1, 0]));
    for row in ["1,1", "0,0", "1,", "0.5,1"] {
        let message = refused(format!("image,MEL,NV\na,0,1\nb,{row}\n"), &exclusive);
        assert!(
            message.starts_with("table.csv, line 3: exactly one class"),
            "{message}"
        );
    }
}

#[test]
fn quotes_line_ends_space_and_a_byte_order_mark_do_not_matter() {
    let plain = table("path,cat\na b.png,1\n\"c,d.png\",0\n", &by_rule());
    assert_eq!(paths(&plain), ["a b.png", "c,d.png"]);
    let other = table(
        "\u{feff}path, cat\r\n\r\n a b.png ,1\r\n\"c,d.png\", 0",
        &by_rule(),
    );
    assert_eq!(paths(&other), paths(&plain));
    assert_eq!(other.labels(), plain.labels());
    let tabs = parsed(
        "table.TSV",
        "path\tcat\na b.png\t1\nc,d.png\t0\n",
        &by_rule(),
    )
    .unwrap();
    assert_eq!(paths(&tabs), paths(&plain));
}

#[test]
fn lists_have_a_path_and_a_label_in_each_line() {
    let list = |text: &str| parsed("list.txt", text, &by_rule());
    let found = list("cats/a 1.jpg cat\n\ndogs/2.jpg\tbig dog\n").unwrap();
    assert_eq!(paths(&found), ["cats/a 1.jpg", "dogs/2.jpg"]);
    assert_eq!(found.classes(), ["big dog", "cat"]);
    assert_eq!(*found.labels(), Labels::Classes(vec![1, 0]));
    let several = list("1.jpg cat|dog\n2.jpg dog\n").unwrap();
    assert_eq!(several.classes(), ["cat", "dog"]);
    let unlabelled = list("1.jpg\n2.jpg\n").unwrap();
    assert_eq!(*unlabelled.labels(), Labels::None);
    let message = list("1.jpg\n2.jpg cat\n").unwrap_err().to_string();
    assert!(
        message.contains("line 1: has no label, but line 2 has one"),
        "{message}"
    );
}

#[test]
fn paths_alone_are_read_for_prediction() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("new.csv");
    fs::write(&file, "path,age\na.png,4\nb.png,unknown\n").unwrap();
    let found = Table::read_paths(&file, &by_rule()).unwrap();
    assert_eq!(*found.labels(), Labels::None);
    assert_eq!(found.picture(1), Some(dir.path().join("b.png")));
    let file = dir.path().join("new.txt");
    fs::write(&file, "a b.png\nc.png\n").unwrap();
    let found = Table::read_paths(&file, &by_rule()).unwrap();
    assert_eq!(paths(&found), ["a b.png", "c.png"]);
}

#[test]
fn a_missing_column_is_named_with_those_that_there_are() {
    let message = refused("file name,cat\na,1\n", &by_rule());
    assert!(
        message.contains("no column of paths was found among `file name`, `cat`"),
        "{message}"
    );
    let columns = Columns {
        labels: of_names(&["dogg"]),
        ..by_rule()
    };
    let message = refused("path,cat,dog\na,1,0\n", &columns);
    assert!(
        message.contains(
            "has no column `dogg` for labels; did you mean `dog`? There are `path`, `cat`, `dog`"
        ),
        "{message}"
    );
    let columns = Columns {
        group: Some("patient".to_owned()),
        ..by_rule()
    };
    let message = refused("path,cat\na,1\n", &columns);
    assert!(
        message.contains("has no column `patient` for groups. There are"),
        "{message}"
    );
    let message = refused("path;cat\na;1\n", &by_rule());
    assert!(
        message.contains("put commas between the cells"),
        "{message}"
    );
}

#[test]
fn two_columns_of_a_name_are_refused() {
    let message = refused("path,cat,cat\na,1,0\n", &by_rule());
    assert!(
        message.contains("columns 2 and 3 are both called `cat`; rename one"),
        "{message}"
    );
}

#[test]
fn a_bad_label_is_named_by_line_and_column() {
    for bad in ["2", "yes", "-0.5", "inf", "1;0"] {
        let message = refused(format!("path,cat,dog\n\na,1,0\n\nb,1,{bad}\n"), &by_rule());
        let start = format!("table.csv, line 5, column `dog`: `{bad}` is neither a number");
        assert!(message.starts_with(&start), "{message}");
        assert!(message.contains("name the columns of labels"), "{message}");
    }
}

#[test]
fn a_name_that_is_not_among_the_classes_given_is_refused() {
    let given = Columns {
        classes: of_names(&["cat", "dog"]),
        ..by_rule()
    };
    let message = refused("path,label\na,cat\nb,dgo\n", &given);
    assert!(
        message.starts_with("table.csv, line 3, column `label`: `dgo` is not one of the classes; did you mean `dog`?"),
        "{message}"
    );
}

#[test]
fn a_picture_needs_its_class_where_classes_are_exclusive() {
    for unknown in ["", "nan", "-1"] {
        let message = refused(format!("path,label\na,cat\nb,{unknown}\n"), &by_rule());
        assert!(
            message.starts_with("table.csv, line 3, column `label`: `"),
            "{message}"
        );
        assert!(message.contains("remove the line"), "{message}");
    }
}

#[test]
fn an_empty_name_between_separators_is_refused() {
    let message = refused("path,label\na,cat|dog\nb,cat||dog\n", &by_rule());
    assert!(
        message.starts_with("table.csv, line 3, column `label`: a name is empty"),
        "{message}"
    );
}

#[test]
fn a_table_of_names_without_any_name_is_refused() {
    let independent = Columns {
        kind: Some(LabelKind::Independent),
        ..by_rule()
    };
    let message = refused("path,label\na,\nb,nan\n", &independent);
    assert!(message.contains("no label names a class"), "{message}");
}

#[test]
fn columns_in_another_order_than_the_classes_are_refused() {
    let columns = Columns {
        labels: of_names(&["cat", "dog"]),
        classes: of_names(&["dog", "cat"]),
        ..by_rule()
    };
    let message = refused("path,cat,dog\na,1,0\n", &columns);
    assert!(
        message
            .contains("the columns of labels are `cat`, `dog`, but the classes are `dog`, `cat`"),
        "{message}"
    );
}

#[test]
fn a_picture_in_two_lines_is_refused_with_both() {
    let message = refused("path,cat\na,1\nb,0\na,0\n", &by_rule());
    assert!(
        message.starts_with("table.csv, line 4, column `path`: `a` is also in line 2"),
        "{message}"
    );
}

#[test]
fn a_line_with_more_or_fewer_cells_is_refused() {
    let message = refused("path,cat\na,1\nb\n", &by_rule());
    assert!(
        message.contains("line 3: has 1 cell, but the first line names 2 columns; complete"),
        "{message}"
    );
    let message = refused("path,cat\nb,c,1\n", &by_rule());
    assert!(message.contains("line 2: has 3 cells"), "{message}");
    assert!(message.contains("put quotes around"), "{message}");
    let message = refused("path,cat\na,1\n\"b,1\nc,0\nd,1\n", &by_rule());
    assert!(message.contains("line 3: has 1 cell"), "{message}");
    assert!(message.contains("a quote may be open"), "{message}");
    let message = refused("path,cat\n\"b\nc\",0\n", &by_rule());
    assert!(
        message.contains("line 2, column `path`: the path goes over"),
        "{message}"
    );
}

#[test]
fn an_empty_path_or_group_is_refused() {
    let message = refused("path,cat\n,1\n", &by_rule());
    assert!(
        message.contains("line 2, column `path`: the path is empty"),
        "{message}"
    );
    let columns = Columns {
        group: Some("owner".to_owned()),
        ..by_rule()
    };
    let message = refused("path,owner,cat\na,x,1\nb,,1\n", &columns);
    assert!(
        message.contains("line 3, column `owner`: the group is empty"),
        "{message}"
    );
}

#[test]
fn an_empty_file_is_refused() {
    for text in ["", "\n \n", "\u{feff}"] {
        let message = refused(text, &by_rule());
        assert!(message.contains("is empty"), "{message}");
    }
    let message = refused("path,cat\n", &by_rule());
    assert!(message.contains("has no line after"), "{message}");
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_line() {
    let message = refused(b"path,cat\na,1\n\xe9,0\n", &by_rule());
    assert!(message.contains("line 3: is not UTF-8"), "{message}");
    let message = refused(b"\xff\xfep\0a\0t\0h\0", &by_rule());
    assert!(message.contains("is UTF-16; save it as UTF-8"), "{message}");
}

#[test]
fn a_file_that_is_not_there_is_refused() {
    let message = Table::read("nowhere/table.csv", &by_rule()).unwrap_err();
    assert!(message.to_string().contains("nowhere/table.csv"));
}

#[test]
fn missing_pictures_are_counted_and_the_first_are_named() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("3.png"), []).unwrap();
    let mut text = String::from("path,patient,cat\n");
    for picture in 0..9 {
        text += &format!("{picture}.png,{picture},{}\n", picture % 2);
    }
    let columns = Columns {
        group: Some("patient".to_owned()),
        ..by_rule()
    };
    let table = table(text, &columns);
    let rooted = table.clone().rooted(dir.path());
    let message = rooted.check_pictures().unwrap_err().to_string();
    assert!(message.starts_with("8 of the 9 pictures in"), "{message}");
    assert!(
        message.contains("such as `0.png` (line 2), `1.png` (line 3), `2.png` (line 4), `4.png` (line 6), `5.png` (line 7); name"),
        "{message}"
    );
    let (there, missing) = rooted.with_pictures_there().unwrap();
    assert_eq!((missing, paths(&there)), (8, vec!["3.png"]));
    assert_eq!(independent(&there), [Some(1.0)]);
    assert_eq!(there.groups().unwrap().len(), 1);
    there.check_pictures().unwrap();
    let nowhere = table.rooted(Path::new("nowhere"));
    assert!(nowhere.with_pictures_there().is_err());
}

/// The pictures of a table in a folder with three; the second is broken.
fn pictures(text: &str, columns: &Columns) -> (TempDir, TablePictures) {
    let dir = TempDir::new().unwrap();
    for name in ["1.png", "3.png"] {
        fs::copy(golden("small.png"), dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("2.png"), "no picture").unwrap();
    let table = table(text, columns).rooted(dir.path());
    table.check_pictures().unwrap();
    let pictures = TablePictures::new(table, Pictures::sized([8, 8]).unwrap()).unwrap();
    (dir, pictures)
}

#[test]
fn labels_reach_the_executor_and_unknown_ones_as_nan() {
    let text = "path,cat,dog\n1.png,1,\n2.png,0,0\n3.png,nan,0.5\n";
    let (_dir, pictures) = pictures(text, &by_rule());
    assert_eq!(pictures.name(2), "3.png");
    let loader = Loader::evaluation(Arc::new(pictures), 3).unwrap();
    let loader = loader.on_broken(OnBroken::Skip).report(|_| {});
    let batch = loader.epoch(0).next().unwrap().unwrap();
    assert_eq!((batch.size(), batch.labels()), (2, &[][..]));
    let batch = batch.as_batch(loader.dataset().normalization());
    let Targets::Independent(values) = batch.targets else {
        panic!("{:?}", batch.targets);
    };
    let known: Vec<_> = values.iter().map(|v| (!v.is_nan()).then_some(*v)).collect();
    assert_eq!(known, [Some(1.0), None, None, Some(0.5)]);
}

#[test]
fn views_repeat_independent_targets() {
    let (_dir, pictures) = pictures("path,a,b\n1.png,1,0\n3.png,0,1\n", &by_rule());
    let ten = Pictures::sized([8, 8]).unwrap();
    let ten = ten.evaluated(densenet_runtime::data::Crops::Ten);
    let pictures = TablePictures::new(pictures.table().clone(), ten).unwrap();
    let loader = Loader::evaluation(Arc::new(pictures), 2).unwrap();
    let batch = loader.epoch(0).next().unwrap().unwrap();
    let Targets::Independent(values) = batch.targets.as_targets() else {
        panic!("{:?}", batch.targets);
    };
    assert_eq!(
        values,
        [[1.0, 0.0].repeat(10), [0.0, 1.0].repeat(10)].concat()
    );
    assert_eq!((batch.size(), batch.views), (2, 10));
}

#[test]
fn a_table_of_names_serves_classes() {
    let (_dir, pictures) = pictures("path,label\n1.png,dog\n3.png,cat\n", &by_rule());
    assert_eq!(pictures.target(0), Target::Class(1));
    check_fit(&pictures, [3, 8, 8], 3).unwrap();
    let loader = Loader::evaluation(Arc::new(pictures), 3).unwrap();
    let batch = loader.epoch(0).next().unwrap().unwrap();
    assert_eq!(batch.labels(), [1, 0]);
}

#[test]
fn independent_classes_must_be_as_many_as_the_networks() {
    let (_dir, pictures) = pictures("path,cat,dog\n1.png,1,0\n", &by_rule());
    check_fit(&pictures, [3, 8, 8], 2).unwrap();
    for classes in [1, 3] {
        let message = check_fit(&pictures, [3, 8, 8], classes).unwrap_err();
        assert!(message.to_string().contains("`classes: 2`"), "{message}");
    }
}

#[test]
fn pictures_without_labels_are_unknown_in_every_class_given() {
    let table = |classes: &[&str]| {
        let columns = Columns {
            classes: of_names(classes),
            ..by_rule()
        };
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("new.csv");
        fs::write(&file, "path\na.png\n").unwrap();
        TablePictures::new(
            Table::read_paths(file, &columns).unwrap(),
            Pictures::sized([8, 8]).unwrap(),
        )
    };
    let pictures = table(&["cat", "dog"]).unwrap();
    let Target::Independent([a, b]) = pictures.target(0) else {
        panic!("{:?}", pictures.target(0));
    };
    assert!(a.is_nan() && b.is_nan());
    let message = table(&[]).unwrap_err().to_string();
    assert!(
        message.contains("has no labels beside the paths in `path`"),
        "{message}"
    );
}

#[test]
fn a_name_of_two_classes_is_refused() {
    let columns = Columns {
        classes: of_names(&["crane", "dog", "crane"]),
        ..by_rule()
    };
    let found = table("path,label\n1,dog\n", &columns);
    assert_eq!(*found.labels(), Labels::Classes(vec![1]));
    let message = refused("path,label\n1,crane\n", &columns);
    assert!(
        message.contains("several classes are called `crane`"),
        "{message}"
    );
}

#[test]
fn a_picture_that_is_written_in_two_ways_is_refused() {
    let message = refused("path,label\na.png,x\n./a.png,y\n", &by_rule());
    assert!(message.contains("`./a.png` is also in line 2"), "{message}");
}

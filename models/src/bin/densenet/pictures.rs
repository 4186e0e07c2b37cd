//! The pictures of a command.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use densenet_models::shell::{CommandLine, describe_left_out};
use densenet_runtime::data::{
    Columns, Crops, Dataset, ImageFolder, LabelKind, Labels, PictureFiles, Pictures, Split, Table,
    TablePictures, Target, check_apart, check_fit, check_same_classes, pictures_in,
};
use densenet_runtime::prelude::*;
use densenet_runtime::train::{Observer, Outline, TrainError};

use crate::saved::Saved;
use crate::view::{Variation, View};

/// What folders of sets, not of classes, are called.
const SETS: [&str; 7] = [
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "test",
    "testing",
];
/// The default share of pictures for validation.
const SHARE: f64 = 0.2;

/// Pictures with labels.
pub type Set = Arc<dyn Dataset>;

/// The options for the source of labelled pictures.
#[derive(Args)]
pub struct Source {
    /// Pictures in folders of their classes: DIR/CLASS/*, or DIR/train/CLASS/* and DIR/val/CLASS/*.
    #[arg(long, value_name = "DIR", required_unless_present = "csv")]
    data: Option<PathBuf>,
    /// A table of pictures: a column of paths (`path`), and a column for each class (1 for yes, 0 for
    /// no; empty, nan or -1 if it is unknown), or one of their names (`label`), several as in
    /// cat|dog.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    csv: Option<PathBuf>,
    /// The folder that the table's paths are relative to [default: the table's].
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The table's columns of labels [default: see --csv].
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    labels: Vec<String>,
    /// The table's column of paths.
    #[arg(long, value_name = "COLUMN")]
    path_column: Option<String>,
    /// The name in a column of names that stands for none of the classes, such as 'No Finding'; a picture may
    /// then have several classes or none.
    #[arg(long, value_name = "NAME")]
    no_class: Option<String>,
}

/// The options for the validation pictures.
#[derive(Args)]
pub struct Validation {
    /// The pictures for validation: a share, drawn from each class alike [default: 0.2 if there is
    /// no DIR/val], or another table.
    #[arg(long, value_name = "SHARE|FILE")]
    val: Option<String>,
    /// The table's column of groups, such as patients: a group is never split.
    #[arg(long, value_name = "COLUMN")]
    group: Option<String>,
    /// The split of an earlier run: its split.csv.
    #[arg(long, value_name = "FILE", conflicts_with = "val")]
    split: Option<PathBuf>,
}

/// The options for the pictures of a run to evaluate on.
#[derive(Args)]
pub struct Judged {
    /// A run's split, its split.csv, to evaluate on its validation pictures.
    #[arg(long, value_name = "FILE")]
    split: Option<PathBuf>,
    /// The part of them to evaluate on.
    #[arg(long, value_enum, default_value_t, requires = "split")]
    part: Part,
}

/// A part of a split.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Part {
    /// The validation pictures.
    #[default]
    Val,
    /// The training pictures.
    Train,
}

/// What is known of a table's labels before it is read.
#[derive(Default)]
struct ExpectedLabels<'a> {
    /// Their classes; empty if the table names them.
    classes: &'a [String],
    /// Their kind; by default the table tells.
    kind: Option<LabelKind>,
}

/// What validates.
enum Validating {
    Share(f64),
    Table(PathBuf),
}

/// The pictures of a run.
pub struct Sets {
    /// Those to train on.
    pub train: Set,
    /// Those to validate on.
    pub val: Set,
    /// The pictures that were split, and how.
    division: Option<(Set, Split)>,
}

impl Sets {
    /// Writes the split, if there is one, into a run's folder when the run begins.
    pub fn note_split(&self, folder: &RunFolder) -> Option<Box<dyn Observer>> {
        let (all, split) = self.division.clone()?;
        let file = folder.path().join(RunFolder::SPLIT);
        Some(Box::new(NoteSplit { all, split, file }))
    }
}

/// Writes a split when a run begins: after all that may refuse the run, and after the files of an earlier run
/// have been moved.
struct NoteSplit {
    all: Set,
    split: Split,
    file: PathBuf,
}

impl Observer for NoteSplit {
    fn begin(&mut self, _: &Outline) -> Result<(), TrainError> {
        let written = self.split.write(&*self.all, &self.file);
        written.map_err(|error| TrainError::Data(error.into()))
    }
}

impl Source {
    /// The pictures of a run, preprocessed as `shown` says. If it is resumed from the checkpoint
    /// `resumed`, the split is the one beside that, and no other may be asked for.
    pub fn sets(
        &self,
        validation: &Validation,
        shown: &Pictures,
        seed: u64,
        resumed: Option<&Path>,
    ) -> Result<Sets, Box<dyn Error>> {
        self.check(validation.group.is_some())?;
        let part = validation.part()?;
        let beside = resumed.map(|checkpoint| checkpoint.with_file_name(RunFolder::SPLIT));
        let beside = beside.filter(|file| file.exists());
        let (all, groups): (Set, _) = match (&self.data, &self.csv) {
            (Some(dir), _) => {
                if let Some([train, val]) = divided(dir) {
                    if validation.val.is_some() || validation.split.is_some() {
                        return Err(already_divided(dir).into());
                    }
                    let train = self.folder(&train, shown)?;
                    // What training needs decides.
                    let val = self.folder(&val, &shown.clone().deep(train.depth()))?;
                    check_same_classes(&*train, &*val)?;
                    return Ok(Sets {
                        train,
                        val,
                        division: None,
                    });
                }
                (self.folder(dir, shown)?, None)
            }
            (None, Some(file)) => {
                let group = &validation.group;
                let train = self.table(file, group, ExpectedLabels::default(), shown)?;
                if let Some(Validating::Table(val)) = &part {
                    let labels = ExpectedLabels {
                        classes: train.classes(),
                        kind: train.table().columns().kind,
                    };
                    let shown = &shown.clone().deep(train.depth());
                    let val = self.table(val, group, labels, shown)?;
                    check_apart(train.table(), val.table())?;
                    check_same_classes(&train, &val)?;
                    return Ok(Sets {
                        train: Arc::new(train),
                        val: Arc::new(val),
                        division: None,
                    });
                }
                let groups = train.table().groups().map(<[_]>::to_vec);
                (Arc::new(train), groups)
            }
            (None, None) => return Err("--data DIR or --csv FILE is needed".into()),
        };
        let read = |file: &Path| -> Result<Split, Box<dyn Error>> {
            let split = Split::read(&*all, file)?;
            if let Some(groups) = &groups {
                split.check_groups(groups)?;
            }
            Ok(split)
        };
        let asked = match (&validation.split, part) {
            (Some(file), _) => Some(read(file)?),
            (None, Some(Validating::Table(file))) => {
                return Err(format!(
                    "--val {}: a table for validation needs a table for training (--csv); with \
                        --data it is a share, such as 0.2",
                    file.display()
                )
                .into());
            }
            (None, Some(Validating::Share(share))) => {
                Some(Split::draw(&*all, groups.as_deref(), share, seed)?)
            }
            (None, None) => None,
        };
        let split = match (beside, asked) {
            (Some(file), asked) => {
                let own = read(&file)?;
                if asked.is_some_and(|asked| asked != own) {
                    return Err(format!(
                        "the run validates on the pictures in {}, and --val or --split asks for others; leave \
                            them out to continue it, or start a new run",
                        file.display()
                    )
                    .into());
                }
                own
            }
            (None, Some(asked)) => asked,
            (None, None) => Split::draw(&*all, groups.as_deref(), SHARE, seed)?,
        };
        let (train, val) = split.divide(all.clone())?;
        Ok(Sets {
            train: Arc::new(train),
            val: Arc::new(val),
            division: Some((all, split)),
        })
    }

    /// Pictures to evaluate a trained network on: a part of a split, or DIR/val if it exists, or all.
    pub fn labelled(
        &self,
        judged: &Judged,
        (view, crops): (&View, Crops),
        saved: &Saved,
    ) -> Result<Set, Box<dyn Error>> {
        self.check(false)?;
        let shown = &view.pictures_for(&saved.plan, &saved.file, crops)?;
        let all: Set = match (&self.data, &self.csv) {
            (Some(dir), _) if judged.split.is_some() && divided(dir).is_some() => {
                return Err(already_divided(dir).into());
            }
            (Some(dir), _) => {
                let val = dir.join("val");
                match judged.split {
                    None if val.is_dir() => self.folder(&val, shown)?,
                    _ => self.folder(dir, shown)?,
                }
            }
            (None, Some(file)) => {
                let labels = ExpectedLabels {
                    classes: &saved.notes.classes,
                    kind: saved.says_kind().then_some(saved.kind),
                };
                Arc::new(self.table(file, &None, labels, shown)?)
            }
            (None, None) => return Err("--data DIR or --csv FILE is needed".into()),
        };
        let set: Set = match &judged.split {
            None => all,
            Some(file) => {
                let (train, val) = Split::read(&*all, file)?.divide(all)?;
                Arc::new(match judged.part {
                    Part::Val => val,
                    Part::Train => train,
                })
            }
        };
        if !saved.notes.classes.is_empty() && set.classes() != saved.notes.classes {
            return Err(format!(
                "the pictures have the classes {:?}, but the weights are for {:?}",
                set.classes(),
                saved.notes.classes
            )
            .into());
        }
        let (found, expected) = (set.classes().len(), saved.plan.classes());
        if kind_of(&*set) == LabelKind::Independent && found < expected {
            return Err(format!(
                "the pictures have {found} classes, but the weights are for {expected}; the table needs a column \
                    for each of these, in their order, with empty cells where nothing is known"
            )
            .into());
        }
        if kind_of(&*set) == LabelKind::Exclusive
            && found < expected
            && saved.notes.classes.is_empty()
        {
            return Err(format!(
                "the pictures have {found} classes, but the network has {expected}, and {} does not name them, so \
                    which of them are meant is unknown; evaluate on pictures of all classes, or on a table of names \
                    (--csv), and name the network's classes with --spec",
                saved.file.path().display()
            )
            .into());
        }
        let stem = saved.plan.stem();
        let input = [stem.channels, stem.height, stem.width];
        check_fit(&*set, input, expected)?;
        Ok(set)
    }

    /// Refuses options for tables if the pictures are in folders.
    fn check(&self, group: bool) -> Result<(), String> {
        let of_tables = [
            ("--root", self.root.is_some()),
            ("--labels", !self.labels.is_empty()),
            ("--path-column", self.path_column.is_some()),
            ("--no-class", self.no_class.is_some()),
            ("--group", group),
        ];
        match of_tables.iter().find(|(_, given)| *given) {
            Some((option, _)) if self.data.is_some() => Err(format!(
                "{option} is for tables; use --csv FILE instead of --data"
            )),
            _ => Ok(()),
        }
    }

    fn folder(&self, dir: &Path, shown: &Pictures) -> Result<Set, Box<dyn Error>> {
        let folder = ImageFolder::open_as(dir, shown.clone())?;
        let is_set = |class: &String| SETS.contains(&class.to_lowercase().as_str());
        if folder.classes().iter().all(is_set) {
            return Err(format!(
                "the folders of {}, {:?}, are sets, not classes; call them `train` and `val`, or give one as --data",
                dir.display(),
                folder.classes()
            )
            .into());
        }
        describe_left_out(&dir.display().to_string(), &folder);
        Ok(Arc::new(folder))
    }

    fn table(
        &self,
        file: &Path,
        group: &Option<String>,
        labels: ExpectedLabels<'_>,
        shown: &Pictures,
    ) -> Result<TablePictures, Box<dyn Error>> {
        let columns = Columns {
            path: self.path_column.clone(),
            labels: self.labels.clone(),
            group: group.clone(),
            // If a name stands for none of the classes, a picture may have none.
            kind: (labels.kind).or(self.no_class.as_ref().map(|_| LabelKind::Independent)),
            classes: labels.classes.to_vec(),
            no_class: self.no_class.clone(),
            ..Columns::default()
        };
        let mut table = Table::read(file, &columns)?;
        if *table.labels() == Labels::None && !labels.classes.is_empty() {
            return Err(format!(
                "{} has no labels beside the paths; add a column for each class, or a column `label` of names",
                file.display()
            )
            .into());
        }
        if let Some(root) = &self.root {
            table = table.rooted(root);
        }
        table.check_pictures()?;
        Ok(TablePictures::new(table, shown.clone())?)
    }

    /// Adds these options to a command line.
    pub fn line(&self, line: CommandLine) -> CommandLine {
        let labels = (!self.labels.is_empty()).then(|| self.labels.join(","));
        line.path("--data", self.data.as_deref())
            .path("--csv", self.csv.as_deref())
            .path("--root", self.root.as_deref())
            .option("--labels", labels)
            .option("--path-column", self.path_column.as_ref())
            .option("--no-class", self.no_class.as_ref())
    }
}

impl Validation {
    fn part(&self) -> Result<Option<Validating>, Box<dyn Error>> {
        let Some(text) = &self.val else {
            return Ok(None);
        };
        match text.parse() {
            Ok(share) => Ok(Some(Validating::Share(share))),
            Err(_) if Path::new(text).is_file() => Ok(Some(Validating::Table(text.into()))),
            Err(_) => Err(format!(
                "--val {text}: it must be a share of the pictures, such as 0.2, or the file of a \
                    table; there is no such file"
            )
            .into()),
        }
    }

    /// Adds these options to a command line.
    pub fn line(&self, line: CommandLine) -> CommandLine {
        line.option("--val", self.val.as_ref())
            .option("--group", self.group.as_ref())
            .path("--split", self.split.as_deref())
    }
}

/// The folders of a set that is already split.
fn divided(dir: &Path) -> Option<[PathBuf; 2]> {
    let folders = ["train", "val"].map(|name| dir.join(name));
    folders
        .iter()
        .all(|folder| folder.is_dir())
        .then_some(folders)
}

/// Why it is not split in another way.
fn already_divided(dir: &Path) -> String {
    let [train, val] = ["train", "val"].map(|name| dir.join(name).display().to_string());
    format!(
        "{} has validation pictures in {val}; leave --val and --split out, or split only the \
            training pictures with --data {train}",
        dir.display(),
    )
}

/// Whether the pictures have one class each.
pub fn kind_of(set: &dyn Dataset) -> LabelKind {
    match set.is_empty() || set.target(0).class().is_some() {
        true => LabelKind::Exclusive,
        false => LabelKind::Independent,
    }
}

/// Loaders of both sets, for a network with this many classes. Pictures that cannot be read are
/// reported and skipped.
pub fn loaders(
    sets: &Sets,
    (variation, classes): (&Variation, usize),
    config: &Config,
    ranks: &Ranks,
) -> Result<(Loader, Loader), Box<dyn Error>> {
    let train = Loader::training(sets.train.clone(), config.batch)?.among(ranks)?;
    let train = match variation.is_balanced() {
        true => train.balanced(),
        false => train,
    };
    let train = train.mixed(variation.mix(), classes)?;
    let val = Loader::evaluation(sets.val.clone(), config.piece())?.among(ranks)?;
    Ok((
        train.seeded(config.seed).on_broken(OnBroken::Skip),
        val.on_broken(OnBroken::Skip),
    ))
}

/// Pictures without labels, by their paths.
pub struct Unlabelled {
    paths: Vec<PathBuf>,
    pictures: Pictures,
    classes: Vec<String>,
    /// All classes are unknown.
    unknown: Vec<f32>,
}

impl Unlabelled {
    /// The pictures at these paths and in these folders, and those of a list.
    pub fn find(
        given: &[PathBuf],
        list: Option<&Path>,
        view: &View,
        saved: &Saved,
    ) -> Result<Self, Box<dyn Error>> {
        let mut paths = Vec::new();
        for path in given {
            if path.is_dir() {
                let found = pictures_in(path)?;
                if found.is_empty() {
                    return Err(format!("there are no pictures in {}", path.display()).into());
                }
                paths.extend(found);
            } else {
                paths.push(path.clone());
            }
        }
        if let Some(file) = list {
            let table = Table::read_paths(file, &Columns::default())?;
            paths.extend((0..table.len()).filter_map(|index| table.picture(index)));
        }
        let pictures = view
            .pictures_for(&saved.plan, &saved.file, Crops::Centre)?
            .as_needed_by(paths.iter().cloned());
        Ok(Self {
            paths,
            pictures,
            unknown: vec![f32::NAN; saved.plan.classes()],
            classes: saved.class_names(),
        })
    }
}

impl PictureFiles for Unlabelled {
    fn pictures(&self) -> &Pictures {
        &self.pictures
    }

    fn count(&self) -> usize {
        self.paths.len()
    }

    fn file(&self, index: usize) -> PathBuf {
        self.paths[index].clone()
    }

    fn class_names(&self) -> &[String] {
        &self.classes
    }

    fn target_of(&self, _: usize) -> Target<'_> {
        Target::Independent(&self.unknown)
    }
}

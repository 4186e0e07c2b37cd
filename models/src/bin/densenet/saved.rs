//! A file of weights, and its network.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::Path;

use densenet_models::PRESETS;
use densenet_runtime::data::LabelKind;
use densenet_runtime::plan::Plan;
use densenet_runtime::say;
use densenet_runtime::train::PlanTrainer;
use densenet_runtime::weights::{LoadOptions, Notes, State, TensorFile, plan_of};
use densenet_spec::ParsedSpec;

use crate::network::{Choice, words};

/// The note with a network's spec in a file of weights.
const SPEC: &str = "densenet.spec";
/// The note with its name.
const NAME: &str = "densenet.name";
/// The note for the kind of classes: `exclusive` or `independent`.
const LABELS: &str = "densenet.labels";
const INDEPENDENT: &str = "independent";
/// The name of a network without a name.
const UNNAMED: &str = "DenseNet";

/// The contents of a file of weights.
pub struct Saved {
    /// The name of the network.
    pub name: String,
    /// Its shapes.
    pub plan: Plan,
    /// The notes beside its tensors.
    pub notes: Notes,
    /// How its classes relate.
    pub kind: LabelKind,
    /// The path and the contents of the file.
    pub file: TensorFile,
}

impl Saved {
    /// Reads a file. Its network is the chosen one, or the one in its notes, or else the one whose
    /// tensors have its shapes.
    pub fn read(path: &Path, choice: &Choice) -> Result<Self, Box<dyn Error>> {
        let file = TensorFile::read(path)?;
        let spec = match file.note(SPEC) {
            _ if choice.is_given() => choice.network()?,
            Some(words) => {
                let spec = ParsedSpec::parse(words)
                    .map_err(|error| format!("{}, its note {SPEC}: {error}", path.display()))?;
                let name = file.note(NAME).unwrap_or(UNNAMED).to_string();
                choice.sized(ParsedSpec { name, ..spec })?
            }
            None => {
                let plan = plan_of(&file, choice.size())?;
                let channels = plan.stem().channels;
                let spec = ParsedSpec {
                    name: name_of(&plan).unwrap_or(UNNAMED).to_string(),
                    plan,
                    classes: Vec::new(),
                };
                match choice.channels() {
                    Some(asked) if asked != channels => choice.sized(spec)?,
                    _ => spec,
                }
            }
        };
        let mut notes = Notes::of(&file)?;
        if !spec.classes.is_empty() {
            if !notes.classes.is_empty() && notes.classes != spec.classes {
                return Err(format!(
                    "{} is for the classes {:?}, but the spec names {:?}; leave `classes` out to use its own",
                    path.display(),
                    notes.classes,
                    spec.classes
                )
                .into());
            }
            notes.classes.clone_from(&spec.classes);
        }
        let (named, found) = (notes.classes.len(), spec.plan.classes());
        if named > found {
            return Err(format!(
                "{} names {named} classes, but its network has {found}",
                path.display(),
            )
            .into());
        }
        // If a picture has one class, there are no thresholds.
        let is_independent = file.note(LABELS) == Some(INDEPENDENT) || !notes.thresholds.is_empty();
        Ok(Self {
            name: spec.name,
            plan: spec.plan,
            notes,
            kind: match is_independent {
                true => LabelKind::Independent,
                false => LabelKind::Exclusive,
            },
            file,
        })
    }

    /// Whether the file notes the kind of its classes; if not, a picture is assumed to have one.
    pub fn says_kind(&self) -> bool {
        self.kind == LabelKind::Independent || self.file.note(LABELS).is_some()
    }

    /// Its name, its spec and the kind of its classes, as the files of a run note them, if they are known.
    pub fn words(&self) -> BTreeMap<String, String> {
        let is_known = |key: &str| match key {
            NAME => self.name != UNNAMED,
            LABELS => self.says_kind(),
            _ => true,
        };
        lines(&self.name, &self.plan, self.kind)
            .into_iter()
            .filter(|(key, _)| is_known(key))
            .map(|(key, line)| (key.to_string(), line))
            .collect()
    }

    /// The network as a spec. The data names its classes.
    pub fn spec(&self) -> ParsedSpec {
        ParsedSpec {
            name: self.name.clone(),
            plan: self.plan.clone(),
            classes: Vec::new(),
        }
    }

    /// Its weights.
    pub fn state(&self) -> Result<State, Box<dyn Error>> {
        // Other contents of the file, such as a checkpoint's momentum, are not read.
        let (state, _) = State::load(&self.plan, &self.file, &LoadOptions::default())?;
        Ok(state)
    }

    /// Renames the classes.
    pub fn name_classes(&mut self, names: Vec<String>) -> Result<(), Box<dyn Error>> {
        let (found, expected) = (names.len(), self.plan.classes());
        if found != expected {
            return Err(format!(
                "{found} names were given for the {expected} classes of {}",
                self.file.path().display()
            )
            .into());
        }
        self.notes.classes = names;
        Ok(())
    }

    /// A name for each class: its own, or its number. A network may have more classes than its data
    /// had names for. Classes of the same name (ImageNet has a bird and a machine called crane) have
    /// their numbers, too.
    pub fn class_names(&self) -> Vec<String> {
        let own = &self.notes.classes;
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for name in own {
            *counts.entry(name).or_default() += 1;
        }
        let named = own
            .iter()
            .enumerate()
            .map(|(class, name)| match counts.get(name.as_str()) {
                Some(2..) => format!("{name} (class {class})"),
                _ => name.clone(),
            });
        let numbers = (own.len()..self.plan.classes()).map(|class| format!("class {class}"));
        named.chain(numbers).collect()
    }

    /// The probability from which each class applies: 0.5 if the file has no threshold.
    pub fn thresholds(&self) -> Vec<f32> {
        let own = self.notes.thresholds.iter().map(|own| own.unwrap_or(0.5));
        own.chain(std::iter::repeat(0.5))
            .take(self.plan.classes())
            .collect()
    }
}

/// The name of the preset that has a plan's layers, whatever its images and classes.
fn name_of(plan: &Plan) -> Option<&'static str> {
    let layers = |plan: &Plan| -> Option<Vec<String>> {
        let spec = ParsedSpec {
            name: String::new(),
            plan: plan.clone(),
            classes: Vec::new(),
        };
        let is_of_layers =
            |key: &String| !key.starts_with("input:") && !key.starts_with("classes:");
        Some(spec.keys()?.into_iter().filter(is_of_layers).collect())
    };
    let own = layers(plan)?;
    let mut presets = PRESETS.iter();
    let preset = presets.find(|preset| layers(&preset.plan()).as_ref() == Some(&own))?;
    Some(preset.network)
}

/// Notes the network and the kind of its classes in a run's files.
pub fn note(trainer: &mut PlanTrainer, spec: &ParsedSpec, kind: LabelKind) {
    for (key, note) in lines(&spec.name, &spec.plan, kind) {
        trainer.note(key, &note);
    }
}

/// The notes for a network and the kind of its classes, by their keys.
pub fn lines(name: &str, plan: &Plan, kind: LabelKind) -> Vec<(&'static str, String)> {
    let labels = match kind {
        LabelKind::Exclusive => "exclusive",
        LabelKind::Independent => INDEPENDENT,
    };
    let spec = words(plan).map(|words| (SPEC, words));
    let known = [(NAME, name.to_string()), (LABELS, labels.to_string())];
    known.into_iter().chain(spec).collect()
}

/// The initial state of a run: that of a file, or all of it except the classifier.
pub fn pretrained(
    file: &TensorFile,
    spec: &ParsedSpec,
    options: &LoadOptions,
) -> Result<State, Box<dyn Error>> {
    let (state, report) = State::load(&spec.plan, file, options)?;
    say!("weights   {report}");
    Ok(state)
}

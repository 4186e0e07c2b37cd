//! A file of weights, and the network that it is of.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use densenet_runtime::data::LabelKind;
use densenet_runtime::plan::Plan;
use densenet_runtime::say;
use densenet_runtime::train::PlanTrainer;
use densenet_runtime::weights::{LoadOptions, Notes, State, TensorFile, plan_of};
use densenet_spec::Spec;

use crate::network::{Choice, words};

/// The note with a network's spec in a file of weights.
const SPEC: &str = "densenet.spec";
/// The note with its name.
const NAME: &str = "densenet.name";
/// The note that says how its classes relate: `exclusive` or `independent`.
const LABELS: &str = "densenet.labels";
const INDEPENDENT: &str = "independent";
/// The name of a network that has none.
const UNNAMED: &str = "DenseNet";

/// What a file of weights says.
pub struct Saved {
    /// The name of the network.
    pub name: String,
    /// Its shapes.
    pub plan: Plan,
    /// What it says beside its tensors.
    pub notes: Notes,
    /// How its classes relate.
    pub kind: LabelKind,
    /// Where it was read from, and what it holds.
    pub file: TensorFile,
}

impl Saved {
    /// Reads a file. Its network is the one that is chosen, or that it notes, or else the one whose
    /// tensors have its shapes.
    pub fn read(path: &Path, choice: &Choice) -> Result<Self, Box<dyn Error>> {
        let file = TensorFile::read(path)?;
        let spec = match file.note(SPEC) {
            _ if choice.is_given() => choice.network()?,
            Some(words) => {
                let spec = Spec::parse(words)
                    .map_err(|error| format!("{}, its note {SPEC}: {error}", path.display()))?;
                let name = file.note(NAME).unwrap_or(UNNAMED).to_string();
                choice.sized(Spec { name, ..spec })?
            }
            None => Spec {
                name: UNNAMED.to_string(),
                plan: plan_of(&file, choice.size())?,
                classes: Vec::new(),
            },
        };
        let notes = Notes::of(&file)?;
        let (named, found) = (notes.classes.len(), spec.plan.classes());
        if named > found {
            return Err(format!(
                "{} names {named} classes, but its network has {found}",
                path.display(),
            )
            .into());
        }
        // Where a picture has one class, there are no thresholds.
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

    /// Whether the file says how its classes relate; otherwise a picture is taken to have one.
    pub fn says_kind(&self) -> bool {
        self.kind == LabelKind::Independent || self.file.note(LABELS).is_some()
    }

    /// Its name, its spec, and how its classes relate, as the files of a run note them; what is not known is
    /// left out.
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

    /// The network as a spec. Its classes are for the data to name.
    pub fn spec(&self) -> Spec {
        Spec {
            name: self.name.clone(),
            plan: self.plan.clone(),
            classes: Vec::new(),
        }
    }

    /// Its weights.
    pub fn state(&self) -> Result<State, Box<dyn Error>> {
        // What the file has besides, such as a checkpoint's momentum, is not asked for.
        let (state, _) = State::load(&self.plan, &self.file, &LoadOptions::default())?;
        Ok(state)
    }

    /// Names the classes anew.
    pub fn name_classes(&mut self, names: Vec<String>) -> Result<(), Box<dyn Error>> {
        let (found, expected) = (names.len(), self.plan.classes());
        if found != expected {
            return Err(format!(
                "{found} names are given for the {expected} classes of {}",
                self.file.path().display()
            )
            .into());
        }
        self.notes.classes = names;
        Ok(())
    }

    /// A name for each class: its own, or its number. A network may have more classes than its data
    /// had names for.
    pub fn class_names(&self) -> Vec<String> {
        let own = &self.notes.classes;
        let numbers = (own.len()..self.plan.classes()).map(|class| format!("class {class}"));
        own.iter().cloned().chain(numbers).collect()
    }

    /// The probability from which on each class applies: 0.5 where the file has none.
    pub fn thresholds(&self) -> Vec<f32> {
        let own = self.notes.thresholds.iter().map(|own| own.unwrap_or(0.5));
        own.chain(std::iter::repeat(0.5))
            .take(self.plan.classes())
            .collect()
    }
}

/// Notes in a run's files what network they are of, and how its classes relate.
pub fn note(trainer: &mut PlanTrainer, spec: &Spec, kind: LabelKind) {
    for (key, note) in lines(&spec.name, &spec.plan, kind) {
        trainer.note(key, &note);
    }
}

/// The notes of what network a file is of, and how its classes relate, by their keys.
pub fn lines(name: &str, plan: &Plan, kind: LabelKind) -> Vec<(&'static str, String)> {
    let labels = match kind {
        LabelKind::Exclusive => "exclusive",
        LabelKind::Independent => INDEPENDENT,
    };
    let spec = words(plan).map(|words| (SPEC, words));
    let known = [(NAME, name.to_string()), (LABELS, labels.to_string())];
    known.into_iter().chain(spec).collect()
}

/// The state that a run starts from: that of a file, or all of it but the classifier's.
pub fn pretrained(
    file: &TensorFile,
    spec: &Spec,
    options: &LoadOptions,
) -> Result<State, Box<dyn Error>> {
    let (state, report) = State::load(&spec.plan, file, options)?;
    say!("weights   {report}");
    Ok(state)
}

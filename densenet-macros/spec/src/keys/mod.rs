//! The keys of a spec, in one table used by the parser and the messages.

pub mod classes;
pub mod value;

use densenet_plan::StemKind;
use syn::parse::ParseStream;

use crate::errors::Errors;
use classes::Classes;
use value::{Budget, Decimal, Given, Growth, Number};

/// A key of a spec.
pub struct Key {
    /// Its name, as written in a spec.
    pub name: &'static str,
    /// Its meaning, in a few words.
    pub meaning: &'static str,
    /// A line that sets it.
    pub example: &'static str,
    /// Whether a spec must set it.
    pub required: bool,
    /// What people who do not know its name may write.
    words: &'static [&'static str],
    /// Reads what follows the key. If it returns an error, there is no value; if it adds one to the
    /// errors, the value has a placeholder in it.
    pub read: fn(&'static Key, ParseStream, &mut Values, &mut Errors) -> syn::Result<()>,
}

/// The values of a spec's keys: `None` if a key is missing or its value cannot be read.
#[derive(Default)]
pub struct Values {
    pub blocks: Option<Given<Vec<Number>>>,
    pub k: Option<Given<Growth>>,
    pub theta: Option<Given<Decimal>>,
    pub bottleneck: Option<Number>,
    pub stem: Option<Given<StemKind>>,
    pub init: Option<Number>,
    pub input: Option<Given<[usize; 3]>>,
    pub classes: Option<Given<Classes>>,
    pub dropout: Option<Given<Decimal>>,
    pub memory: Option<Given<Budget>>,
}

fn set<T>(
    slot: &mut Option<Given<T>>,
    read: value::Read<T>,
    key: &'static Key,
    input: ParseStream,
    errors: &mut Errors,
) -> syn::Result<()> {
    *slot = Some(read(key, input, errors)?);
    Ok(())
}

/// All keys, in the order in which messages list them.
pub static KEYS: [Key; 10] = [
    Key {
        name: "blocks",
        meaning: "layers of each block",
        example: "blocks: [6, 12, 48, 32]",
        required: true,
        words: &["block", "layers", "depths", "block_config"],
        read: |key, input, values, errors| {
            set(&mut values.blocks, value::blocks, key, input, errors)
        },
    },
    Key {
        name: "k",
        meaning: "growth rate",
        example: "k: 32",
        required: true,
        words: &["growth", "growth_rate", "rate"],
        read: |key, input, values, errors| set(&mut values.k, value::growth, key, input, errors),
    },
    Key {
        name: "theta",
        meaning: "compression",
        example: "theta: 0.5",
        required: false,
        words: &["compression", "reduction"],
        read: |key, input, values, errors| set(&mut values.theta, value::theta, key, input, errors),
    },
    Key {
        name: "bottleneck",
        meaning: "bottleneck layers",
        example: "bottleneck",
        required: false,
        words: &["bn_size", "bottlenecks"],
        read: |key, input, values, errors| {
            set(
                &mut values.bottleneck,
                value::bottleneck,
                key,
                input,
                errors,
            )
        },
    },
    Key {
        name: "stem",
        meaning: "first layers",
        example: "stem: imagenet",
        required: false,
        words: &["head", "start"],
        read: |key, input, values, errors| set(&mut values.stem, value::stem, key, input, errors),
    },
    Key {
        name: "init",
        meaning: "feature maps of the stem",
        example: "init: 64",
        required: false,
        words: &["init_features", "num_init_features", "initial"],
        read: |key, input, values, errors| set(&mut values.init, value::number, key, input, errors),
    },
    Key {
        name: "input",
        meaning: "channels, height and width of an image",
        example: "input: [3, 224, 224]",
        required: false,
        words: &["image", "image_size", "input_size", "shape", "size"],
        read: |key, input, values, errors| set(&mut values.input, value::image, key, input, errors),
    },
    Key {
        name: "classes",
        meaning: "number of classes",
        example: "classes: 1000",
        required: false,
        words: &["num_classes", "class", "labels", "outputs"],
        read: |key, input, values, errors| {
            set(&mut values.classes, classes::classes, key, input, errors)
        },
    },
    Key {
        name: "dropout",
        meaning: "probability of dropout",
        example: "dropout: 0.2",
        required: false,
        words: &["drop", "drop_rate"],
        read: |key, input, values, errors| {
            set(&mut values.dropout, value::dropout, key, input, errors)
        },
    },
    Key {
        name: "memory",
        meaning: "memory budget of a training step",
        example: "memory: 24 GiB at 64",
        required: false,
        words: &["budget", "mem", "ram"],
        read: |key, input, values, errors| {
            set(&mut values.memory, value::memory, key, input, errors)
        },
    },
];

impl Key {
    /// The key of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The key that a misspelled name most likely means; `None` if no key is similar.
    pub fn nearest(name: &str) -> Option<&'static Self> {
        let name = name.to_lowercase();
        let likeness = |key: &Self| {
            std::iter::once(&key.name)
                .chain(key.words)
                .map(|word| strsim::normalized_damerau_levenshtein(word, &name))
                .fold(0.0, f64::max)
        };
        KEYS.iter()
            .map(|key| (likeness(key), key))
            .filter(|(likeness, _)| *likeness > 0.5)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, key)| key)
    }

    /// The key and its meaning, for a message: "`k` (growth rate)".
    pub fn title(&self) -> String {
        format!("`{}` ({})", self.name, self.meaning)
    }

    /// How to write the key, for a message.
    pub fn usage(&self) -> String {
        format!("write it as `{}`", self.example)
    }

    /// All names, for a message.
    pub fn list() -> String {
        let names: Vec<_> = KEYS.iter().map(|key| format!("`{}`", key.name)).collect();
        names.join(", ")
    }
}

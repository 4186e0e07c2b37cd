//! Which network a command is about.

use std::error::Error;
use std::path::Path;
use std::str::FromStr;

use clap::Args;
use densenet_models::preset;
use densenet_runtime::plan::Plan;
use densenet_spec::ParsedSpec;

/// The network that is trained by default.
const DEFAULT: &str = "densenet121";

/// The options that choose a network.
#[derive(Args, Default)]
pub struct Choice {
    /// One of the paper's networks, such as densenet121 or cifar_bc_100_12 [default: that of the
    /// weights, or densenet121].
    #[arg(long, value_name = "PRESET", conflicts_with = "spec")]
    pub model: Option<String>,
    /// A network in the words of `densenet!`, such as 'blocks: [6, 12, 24], k: 12, theta: 0.5,
    /// bottleneck'.
    #[arg(long, value_name = "WORDS")]
    pub spec: Option<String>,
    /// A size of the images that replaces the network's own: 224, 192x256, or 1x224x224 for grey ones.
    #[arg(long, value_name = "SIZE")]
    pub input: Option<Input>,
}

impl Choice {
    /// The requested network, with the requested size of images.
    pub fn network(&self) -> Result<ParsedSpec, Box<dyn Error>> {
        let spec = match (&self.model, &self.spec) {
            (_, Some(words)) => ParsedSpec::parse(words)?,
            (Some(name), None) => of_preset(name)?,
            (None, None) => of_preset(DEFAULT)?,
        };
        self.sized(spec)
    }

    /// The requested height and width of images.
    pub fn size(&self) -> Option<[usize; 2]> {
        self.input.map(|input| [input.height, input.width])
    }

    /// The requested channels of images.
    pub fn channels(&self) -> Option<usize> {
        self.input.and_then(|input| input.channels)
    }

    /// Refuses these options if they ask for another network than that of a run, whatever its classes.
    pub fn check_is(&self, own: &ParsedSpec, checkpoint: &Path) -> Result<(), Box<dyn Error>> {
        let asked = match (self.is_given(), self.input) {
            (true, _) => self.network()?,
            (false, Some(_)) => self.sized(own.clone())?,
            (false, None) => return Ok(()),
        };
        let classes = vec![String::new(); own.plan.classes()];
        if with(&asked, &[Change::Classes(&classes)])?.plan == own.plan {
            return Ok(());
        }
        Err(format!(
            "the run of {} has another network than --model, --spec or --input asks for; leave these options out \
                to continue it, or start a new run",
            checkpoint.display()
        )
        .into())
    }

    /// Whether a network is asked for.
    pub fn is_given(&self) -> bool {
        self.model.is_some() || self.spec.is_some()
    }

    /// A network with the requested size of images.
    pub fn sized(&self, spec: ParsedSpec) -> Result<ParsedSpec, Box<dyn Error>> {
        match self.input {
            Some(input) => with(&spec, &[Change::Input(input)]),
            None => Ok(spec),
        }
    }
}

/// The size of images on the command line: the channels may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    channels: Option<usize>,
    height: usize,
    width: usize,
}

impl FromStr for Input {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
        let (channels, height, width) = match numbers.as_deref() {
            Ok(&[side]) => (None, side, side),
            Ok(&[height, width]) => (None, height, width),
            Ok(&[channels, height, width]) => (Some(channels), height, width),
            _ => {
                return Err(
                    "write it as 224 (a square), 192x256 (height, width) or 1x224x224 (channels, height, width)"
                        .to_string(),
                );
            }
        };
        Ok(Self {
            channels,
            height,
            width,
        })
    }
}

/// What differs from a network's spec.
pub enum Change<'a> {
    /// The size of the images.
    Input(Input),
    /// The classes, by name.
    Classes(&'a [String]),
}

/// The network with the same layers and these changes.
pub fn with(spec: &ParsedSpec, changes: &[Change<'_>]) -> Result<ParsedSpec, Box<dyn Error>> {
    let Some(mut keys) = spec.keys() else {
        return Err(format!(
            "{} has layers that no spec describes, so its input and classes are those of its weights",
            spec.name
        )
        .into());
    };
    for change in changes {
        let (key, value) = match change {
            Change::Input(input) => {
                let channels = input.channels.unwrap_or(spec.plan.stem().channels);
                let value = format!("[{channels}, {}, {}]", input.height, input.width);
                ("input", value)
            }
            Change::Classes(names) => ("classes", names.len().to_string()),
        };
        let start = format!("{key}:");
        keys.retain(|written| !written.starts_with(&start));
        keys.push(format!("{start} {value}"));
    }
    // The name is not one of the keys.
    let name = spec.name.clone();
    Ok(ParsedSpec {
        name,
        ..ParsedSpec::parse(&keys.join(", "))?
    })
}

/// The network of a preset.
pub fn of_preset(name: &str) -> Result<ParsedSpec, Box<dyn Error>> {
    let preset = preset(name)?;
    Ok(ParsedSpec {
        name: preset.network.to_string(),
        plan: preset.plan(),
        classes: Vec::new(),
    })
}

/// A network's spec in one line, for a file's note; `None` if no spec describes it.
pub fn words(plan: &Plan) -> Option<String> {
    let spec = ParsedSpec {
        name: String::new(),
        plan: plan.clone(),
        classes: Vec::new(),
    };
    Some(spec.keys()?.join(", "))
}

#[cfg(test)]
mod tests {
    use densenet_models::PRESETS;

    use super::*;

    #[test]
    fn each_preset_has_words_that_give_its_plan() {
        for preset in PRESETS {
            let words = words(&preset.plan()).expect(preset.name);
            assert_eq!(
                ParsedSpec::parse(&words).unwrap().plan,
                preset.plan(),
                "{words}"
            );
        }
    }

    #[test]
    fn a_size_is_a_side_or_two_or_three_numbers() {
        let size = |text: &str| text.parse::<Input>();
        let input = |channels, height, width| Input {
            channels,
            height,
            width,
        };
        assert_eq!(size("224"), Ok(input(None, 224, 224)));
        assert_eq!(size("192x256"), Ok(input(None, 192, 256)));
        assert_eq!(size("1x64x32"), Ok(input(Some(1), 64, 32)));
        for text in ["", "x", "224x", "1x2x3x4", "-1", "1.5"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}

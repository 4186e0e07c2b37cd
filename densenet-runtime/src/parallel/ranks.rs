//! The processes that train together.

use densenet_cpu::threads::{LOCAL_WORLD_SIZE, processes_here};

use super::{ParallelError, Secret};
use crate::console;

/// The processes that train together, as one of them sees them. A process that trains alone has
/// rank 0 of 1.
///
/// This is all that a program needs to train with others. The loader, the device and the trainer
/// take it:
///
/// ```no_run
/// use std::sync::Arc;
/// use densenet_runtime::prelude::*;
///
/// # fn run<N: Network>(model: N, config: Config, images: ImageFolder) -> Result<(), Box<dyn std::error::Error>> {
/// let ranks = Ranks::from_env()?;
/// let device = DeviceChoice::Cuda(0).open_for(&ranks)?;
/// let train = Loader::training(Arc::new(images), config.batch)?.among(&ranks)?;
/// let mut trainer = Trainer::among(model, config, &device, &ranks)?;
/// # Ok(())
/// # }
/// ```
///
/// All ranks call the same functions. The first one writes the files (checkpoints, metrics,
/// curves), shows the progress and prints results ([`say!`](crate::say)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// The number of this process among all, counted from 0: `RANK`.
    pub rank: usize,
    /// The number of processes: `WORLD_SIZE`.
    pub world_size: usize,
    /// The number of this process among those on this machine, and so of its device: `LOCAL_RANK`.
    pub local_rank: usize,
    /// The number of processes on this machine: `LOCAL_WORLD_SIZE`. If that is not set, all of them
    /// if rank 0 has a loopback address, or else one.
    pub local_world_size: usize,
    /// The address of rank 0: `MASTER_ADDR`.
    pub master: String,
    /// The port of rank 0: `MASTER_PORT`, or the next one if torchrun itself listens on that.
    pub port: u16,
    /// The secret that only the processes of this job know: `DENSENET_JOB_SECRET`, or torchrun's
    /// run id (`TORCHELASTIC_RUN_ID`, its `--rdzv-id`) unless that is `none`.
    pub secret: Secret,
}

/// `True` if torchrun's agent has a server of its own at `MASTER_PORT`.
const TAKEN: &str = "TORCHELASTIC_USE_AGENT_STORE";

const NAMES: [&str; 5] = [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
];

impl Ranks {
    /// A process that trains alone.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            world_size: 1,
            local_rank: 0,
            local_world_size: 1,
            master: "localhost".into(),
            port: 0,
            secret: Secret::none(),
        }
    }

    /// Reads the variables that torchrun sets. A process is alone if none of them is set, or if
    /// `WORLD_SIZE` is 1. From here on [`say!`](crate::say) prints nothing in a process that is not
    /// the first.
    ///
    /// # Errors
    /// If some variables are set and others are not, or one has an invalid value.
    pub fn from_env() -> Result<Self, ParallelError> {
        let ranks = Self::from(|name| std::env::var(name).ok())?;
        if !ranks.is_first() {
            console::silence();
        }
        Ok(ranks)
    }

    /// Whether this process trains without others.
    pub fn is_alone(&self) -> bool {
        self.world_size == 1
    }

    /// Whether this process is the one that writes and prints.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Reads the variables by a function.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, ParallelError> {
        // The first two are set for processes that train together; the others may be set for other
        // reasons.
        let Some(set) = NAMES[..2]
            .iter()
            .copied()
            .find(|name| variable(name).is_some())
        else {
            return Ok(Self::alone());
        };
        let get = |missing| variable(missing).ok_or(ParallelError::Missing { missing, set });
        let world_size = number("WORLD_SIZE", get("WORLD_SIZE")?, 1, usize::MAX)?;
        let rank = number("RANK", get("RANK")?, 0, world_size - 1)?;
        if world_size == 1 {
            return Ok(Self::alone());
        }
        let local_rank = number("LOCAL_RANK", get("LOCAL_RANK")?, 0, world_size - 1)?;
        if let Some(value) = variable(LOCAL_WORLD_SIZE) {
            number(LOCAL_WORLD_SIZE, value, local_rank + 1, world_size)?;
        }
        let master = get("MASTER_ADDR")?;
        if master.trim().is_empty() {
            return Err(ParallelError::Invalid {
                name: "MASTER_ADDR",
                value: master,
                expected: "the name or address of rank 0's machine".into(),
            });
        }
        let offset = usize::from(variable(TAKEN).as_deref() == Some("True"));
        let last = usize::from(u16::MAX) - offset;
        let port = number("MASTER_PORT", get("MASTER_PORT")?, 1, last)? + offset;
        Ok(Self {
            rank,
            world_size,
            local_rank,
            local_world_size: processes_here(&variable),
            master,
            port: port as u16,
            secret: secret(variable)?,
        })
    }
}

fn secret(variable: impl Fn(&'static str) -> Option<String>) -> Result<Secret, ParallelError> {
    const OWN: &str = "DENSENET_JOB_SECRET";
    if let Some(value) = variable(OWN) {
        if value.trim().is_empty() {
            return Err(ParallelError::Invalid {
                name: OWN,
                value,
                expected: "a long random text, the same for all ranks".into(),
            });
        }
        return Ok(Secret::new(value));
    }
    // torchrun sets `none` if it was given no id.
    let run = variable("TORCHELASTIC_RUN_ID").filter(|run| !run.is_empty() && run != "none");
    Ok(run.map_or(Secret::none(), Secret::new))
}

fn number(
    name: &'static str,
    value: String,
    least: usize,
    most: usize,
) -> Result<usize, ParallelError> {
    match value.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(ParallelError::Invalid {
            name,
            value,
            expected: match most {
                usize::MAX => format!("a number from {least} on"),
                most => format!("a number from {least} to {most}"),
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(changes: &[(&str, Option<&str>)]) -> Result<Ranks, ParallelError> {
        Ranks::from(|name| {
            let set = [
                ("RANK", "1"),
                ("WORLD_SIZE", "4"),
                ("LOCAL_RANK", "1"),
                ("MASTER_ADDR", "node0"),
                ("MASTER_PORT", "29500"),
            ];
            let changed = changes.iter().find(|(changed, _)| *changed == name);
            let usual = set.iter().find(|(usual, _)| *usual == name);
            match changed {
                Some((_, value)) => value.map(str::to_owned),
                None => usual.map(|(_, value)| (*value).to_owned()),
            }
        })
    }

    #[test]
    fn torchruns_variables_say_which_rank_this_is() {
        let expected = Ranks {
            rank: 1,
            world_size: 4,
            local_rank: 1,
            local_world_size: 1,
            master: "node0".into(),
            port: 29_500,
            secret: Secret::none(),
        };
        assert_eq!(with(&[]).unwrap(), expected);
    }

    #[test]
    fn ranks_are_on_this_machine_as_torchrun_says_or_all_on_a_loopback() {
        let here = |changes: &[_]| with(changes).unwrap().local_world_size;
        assert_eq!(here(&[(LOCAL_WORLD_SIZE, Some("2"))]), 2);
        for near in ["127.0.0.1", "127.0.1.1", "::1", "localhost"] {
            assert_eq!(here(&[("MASTER_ADDR", Some(near))]), 4);
            let both = [("MASTER_ADDR", Some(near)), (LOCAL_WORLD_SIZE, Some("2"))];
            assert_eq!(here(&both), 2);
        }
    }

    #[test]
    fn the_secret_is_our_own_variable_or_else_torchruns_run() {
        let of = |changes: &[_]| with(changes).unwrap().secret;
        let run = ("TORCHELASTIC_RUN_ID", Some("run"));
        assert_eq!(of(&[run]), Secret::new("run"));
        let own = ("DENSENET_JOB_SECRET", Some("own"));
        assert_eq!(of(&[run, own]), Secret::new("own"));
        assert_eq!(of(&[("TORCHELASTIC_RUN_ID", Some("none"))]), Secret::none());
        let error = with(&[("DENSENET_JOB_SECRET", Some(" "))]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("a long random text"), "{error}");
    }

    #[test]
    fn a_port_that_torchrun_itself_has_is_left_to_it() {
        let taken = (TAKEN, Some("True"));
        assert_eq!(with(&[taken]).unwrap().port, 29_501);
        let own = (TAKEN, Some("False"));
        assert_eq!(with(&[own]).unwrap().port, 29_500);
        let error = with(&[taken, ("MASTER_PORT", Some("65535"))]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("from 1 to 65534"), "{error}");
    }

    #[test]
    fn one_process_is_alone() {
        let none: Vec<_> = NAMES.iter().map(|&name| (name, None)).collect();
        assert_eq!(with(&none).unwrap(), Ranks::alone());
        let one = [("RANK", Some("0")), ("WORLD_SIZE", Some("1"))];
        assert_eq!(with(&one).unwrap(), Ranks::alone());
    }

    #[test]
    fn what_is_missing_is_named() {
        for name in NAMES {
            let error = with(&[(name, None)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is not set")), "{error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named_with_what_would() {
        for (name, value, expected) in [
            ("RANK", "4", "from 0 to 3"),
            ("RANK", "-1", "from 0 to 3"),
            ("WORLD_SIZE", "0", "from 1 on"),
            ("WORLD_SIZE", "many", "from 1 on"),
            ("LOCAL_RANK", "x", "from 0 to 3"),
            ("LOCAL_WORLD_SIZE", "1", "from 2 to 4"),
            ("LOCAL_WORLD_SIZE", "5", "from 2 to 4"),
            ("MASTER_ADDR", " ", "rank 0's machine"),
            ("MASTER_PORT", "0", "from 1 to 65535"),
            ("MASTER_PORT", "70000", "from 1 to 65535"),
        ] {
            let error = with(&[(name, Some(value))]).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} is `{value}`")), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }
}

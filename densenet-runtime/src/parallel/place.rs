//! Who a process is among others.

use super::ParallelError;

/// Who a process is among those that train together, as torchrun tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of all processes, counted from 0: `RANK`.
    pub rank: usize,
    /// How many there are: `WORLD_SIZE`.
    pub size: usize,
    /// Which of those on this machine, and so the number of its device: `LOCAL_RANK`.
    pub local_rank: usize,
    /// Where rank 0 can be reached: `MASTER_ADDR`.
    pub master: String,
    /// On which port: `MASTER_PORT`, or the next one where torchrun itself listens on that.
    pub port: u16,
}

/// `True` where torchrun's agent has a server of its own at `MASTER_PORT`.
const TAKEN: &str = "TORCHELASTIC_USE_AGENT_STORE";

const NAMES: [&str; 5] = [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
];

impl Place {
    /// From the environment. A process that is alone has none: no variable is set, or
    /// `WORLD_SIZE` is 1.
    ///
    /// # Errors
    /// When some variables are set and others are not, or one makes no sense.
    pub fn from_env() -> Result<Option<Self>, ParallelError> {
        Self::from(|name| std::env::var(name).ok())
    }

    /// From variables that are looked up.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from(
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Option<Self>, ParallelError> {
        // The first two are what makes a process one of several; others are set for other reasons.
        let Some(set) = NAMES[..2]
            .iter()
            .copied()
            .find(|name| variable(name).is_some())
        else {
            return Ok(None);
        };
        let get = |missing| variable(missing).ok_or(ParallelError::Missing { missing, set });
        let size = number("WORLD_SIZE", get("WORLD_SIZE")?, 1, usize::MAX)?;
        let rank = number("RANK", get("RANK")?, 0, size - 1)?;
        if size == 1 {
            return Ok(None);
        }
        let local_rank = number("LOCAL_RANK", get("LOCAL_RANK")?, 0, size - 1)?;
        let master = get("MASTER_ADDR")?;
        if master.trim().is_empty() {
            return Err(ParallelError::Invalid {
                name: "MASTER_ADDR",
                value: master,
                expected: "the name or address of rank 0's machine".into(),
            });
        }
        let behind = usize::from(variable(TAKEN).as_deref() == Some("True"));
        let last = usize::from(u16::MAX) - behind;
        let port = number("MASTER_PORT", get("MASTER_PORT")?, 1, last)? + behind;
        Ok(Some(Self {
            rank,
            size,
            local_rank,
            master,
            port: port as u16,
        }))
    }
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

    fn with(changes: &[(&str, Option<&str>)]) -> Result<Option<Place>, ParallelError> {
        Place::from(|name| {
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
    fn torchruns_variables_are_a_place() {
        let expected = Place {
            rank: 1,
            size: 4,
            local_rank: 1,
            master: "node0".into(),
            port: 29_500,
        };
        assert_eq!(with(&[]).unwrap(), Some(expected));
    }

    #[test]
    fn a_port_that_torchrun_itself_has_is_left_to_it() {
        let taken = (TAKEN, Some("True"));
        assert_eq!(with(&[taken]).unwrap().unwrap().port, 29_501);
        let own = (TAKEN, Some("False"));
        assert_eq!(with(&[own]).unwrap().unwrap().port, 29_500);
        let error = with(&[taken, ("MASTER_PORT", Some("65535"))]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("from 1 to 65534"), "{error}");
    }

    #[test]
    fn one_process_is_alone() {
        let none: Vec<_> = NAMES.iter().map(|&name| (name, None)).collect();
        assert_eq!(with(&none).unwrap(), None);
        let one = [("RANK", Some("0")), ("WORLD_SIZE", Some("1"))];
        assert_eq!(with(&one).unwrap(), None);
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
